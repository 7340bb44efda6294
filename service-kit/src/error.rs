//! Errors with their causes in one line.

use std::error::Error;
use std::fmt;

/// Displays an error and its causes on one line: `outer: inner: root`. A cause is left out if the
/// error before it already ends with the same text.
pub struct Chain<'a>(pub &'a dyn Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut previous = self.0.to_string();
        f.write_str(&previous)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            let cause = error.to_string();
            if !previous.ends_with(&cause) {
                write!(f, ": {cause}")?;
                previous = cause;
            }
            source = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct TestError {
        text: &'static str,
        source: Option<Box<TestError>>,
    }

    fn test_error(text: &'static str, source: Option<TestError>) -> TestError {
        TestError { text, source: source.map(Box::new) }
    }

    #[test]
    fn causes_are_joined_without_repetition() {
        let root = test_error("connection refused", None);
        let middle = test_error("cannot connect: connection refused", Some(root));
        let outer = test_error("database failed", Some(middle));
        let line = Chain(&outer).to_string();
        assert_eq!(line, "database failed: cannot connect: connection refused");
    }
}
