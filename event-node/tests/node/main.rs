//! Tests of the node over its port, with the official Rust client and with raw messages.

#[cfg(test)]
mod access_lists;
#[cfg(test)]
mod access_model;
#[cfg(test)]
mod append;
#[cfg(test)]
mod backups;
#[cfg(test)]
mod batch_append;
#[cfg(test)]
mod cancelled_calls;
#[cfg(test)]
mod damage;
#[cfg(test)]
mod durability;
#[cfg(test)]
mod fixture;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod fuzz_values;
#[cfg(test)]
mod group_consumers;
#[cfg(test)]
mod group_records;
#[cfg(test)]
mod group_requests;
#[cfg(test)]
mod groups;
#[cfg(test)]
mod http2_frames;
#[cfg(test)]
mod overload;
#[cfg(test)]
mod raw_http;
#[cfg(test)]
mod read;
#[cfg(test)]
mod request_validation;
#[cfg(test)]
mod responses;
#[cfg(test)]
mod scavenge;
#[cfg(test)]
mod statuses;
#[cfg(test)]
mod subscribe;
#[cfg(test)]
mod tls;
#[cfg(test)]
mod users;
