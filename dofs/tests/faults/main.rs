//! Promises under faults: nothing accepted is lost, nothing is fulfilled twice, and what fails
//! says so and resumes by itself.

#![expect(clippy::unwrap_used, reason = "what a test cannot go on without ends it")]

mod chaos;
mod fixture;
mod outage;
mod restarts;
mod workers;
