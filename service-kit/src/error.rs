//! Errors with their causes.

use std::error::Error;
use std::fmt;

/// Shows an error and all its causes on one line: `outer: inner: root`. A cause whose words the
/// error before it has taken over is left out.
pub struct Chain<'a>(pub &'a dyn Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = self.0.to_string();
        f.write_str(&said)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            let cause = error.to_string();
            if !said.ends_with(&cause) {
                write!(f, ": {cause}")?;
                said = cause;
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
    #[error("{said}")]
    struct Said {
        said: &'static str,
        source: Option<Box<Said>>,
    }

    fn said(said: &'static str, source: Option<Said>) -> Said {
        Said { said, source: source.map(Box::new) }
    }

    #[test]
    fn causes_follow_and_none_is_said_twice() {
        let root = said("connection refused", None);
        let middle = said("cannot connect: connection refused", Some(root));
        let outer = said("database failed", Some(middle));
        let shown = Chain(&outer).to_string();
        assert_eq!(shown, "database failed: cannot connect: connection refused");
    }
}
