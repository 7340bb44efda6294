//! Settings of tests that vary faults and requests: the seed, and the number or duration of the trials.

/// Returns the number in `DOFS_TEST_SEED`, or `default`, and prints it. The output of a failed test therefore
/// contains the seed that repeats it.
#[expect(clippy::print_stdout, reason = "the test harness shows the output of failed tests")]
#[must_use]
pub fn seed(default: u64) -> u64 {
    let seed = number("DOFS_TEST_SEED", default);
    println!("DOFS_TEST_SEED={seed}");
    seed
}

/// Returns the number in the environment variable `name`, or `default` if the variable is not set.
///
/// # Panics
///
/// If the variable is not a number: the test would otherwise run with the default and pass.
#[expect(clippy::disallowed_methods, reason = "settings of tests, not of the product")]
#[must_use]
pub fn number(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is not a number: `{text}`")),
        Err(_) => default,
    }
}
