//! Access control list of a stream: the roles that have each right.

use serde_json::Value;

/// Keys of a list, in the order of [`Right`].
const RIGHTS: [&str; 5] = ["$r", "$w", "$d", "$mr", "$mw"];

/// A right to a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Right {
    Read,
    Write,
    Delete,
    ReadMetadata,
    WriteMetadata,
}

/// Access control list: the roles that have each right. `None` if the list does not mention a
/// right.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct StreamAcl {
    roles: [Option<Vec<String>>; 5],
}

impl StreamAcl {
    /// Parses a list. Returns `None` for an unknown right, or if a right has neither a role nor an
    /// array of roles.
    pub(super) fn from_value(value: &Value) -> Option<Self> {
        let mut acl = Self::default();
        for (key, value) in value.as_object()? {
            let roles = match value {
                Value::String(role) => vec![role.clone()],
                Value::Array(roles) => roles
                    .iter()
                    .map(|role| role.as_str().map(str::to_owned))
                    .collect::<Option<_>>()?,
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => return None,
            };
            let index = RIGHTS.iter().position(|right| right == key)?;
            *acl.roles.get_mut(index)? = Some(roles);
        }
        Some(acl)
    }

    /// Returns the roles that have the right, or `None` if the list does not mention it.
    pub(crate) fn roles(&self, right: Right) -> Option<&[String]> {
        let index = match right {
            Right::Read => 0,
            Right::Write => 1,
            Right::Delete => 2,
            Right::ReadMetadata => 3,
            Right::WriteMetadata => 4,
        };
        self.roles.get(index)?.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(json: &str) -> Option<StreamAcl> {
        StreamAcl::from_value(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn right_has_one_role_several_or_none() {
        let acl = acl(r#"{"$r":"ada","$w":["ada","$all"],"$d":[]}"#).unwrap();
        assert_eq!(acl.roles(Right::Read).unwrap(), ["ada"]);
        assert_eq!(acl.roles(Right::Write).unwrap(), ["ada", "$all"]);
        assert_eq!(acl.roles(Right::Delete).unwrap(), [""; 0]);
        assert_eq!(acl.roles(Right::ReadMetadata), None);
    }
}
