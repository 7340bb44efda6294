//! The caller of an rpc.

use std::sync::Arc;

/// Group of administrators. Access control lists do not apply to its members.
pub(super) const ADMINS: &str = "$admins";

/// Group of operators: scavenges, and persistent subscription groups.
pub(super) const OPERATORS: &str = "$ops";

/// Users that are members of [`ADMINS`] and [`OPERATORS`] by their names, as in EventStoreDB.
const ADMIN_USER: &str = "admin";
const OPERATOR_USER: &str = "ops";

/// A user of the node, without the password.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub name: String,
    pub groups: Vec<String>,
}

/// The caller of an rpc.
#[derive(Debug, Clone)]
pub(crate) enum Caller {
    /// The node has no users: every caller has all rights.
    Unrestricted,
    /// The call has no credentials.
    Anonymous,
    User(Arc<User>),
}

impl Caller {
    /// Returns whether access control lists do not apply.
    pub(crate) fn is_admin(&self) -> bool {
        match self {
            Self::Unrestricted => true,
            Self::Anonymous => false,
            Self::User(user) => user.name == ADMIN_USER || user.is_member(ADMINS),
        }
    }

    /// Returns whether the caller may scavenge and manage persistent subscription groups.
    pub(crate) fn is_operator(&self) -> bool {
        match self {
            Self::Unrestricted | Self::Anonymous => self.is_admin(),
            Self::User(user) => {
                self.is_admin() || user.name == OPERATOR_USER || user.is_member(OPERATORS)
            }
        }
    }

    pub(crate) fn is_authenticated(&self) -> bool {
        !matches!(self, Self::Anonymous)
    }

    /// Returns whether the caller has a role: the name of the user, or of one of the user's groups.
    pub(super) fn has_role(&self, role: &str) -> bool {
        match self {
            Self::Unrestricted => true,
            Self::Anonymous => false,
            Self::User(user) => user.name == role || user.is_member(role),
        }
    }

    /// Returns the name that statistics and records show; `default` if the node has no users.
    pub(crate) fn name<'a>(&'a self, default: &'a str) -> &'a str {
        match self {
            Self::Unrestricted => default,
            Self::Anonymous => "anonymous",
            Self::User(user) => &user.name,
        }
    }
}

impl User {
    fn is_member(&self, group: &str) -> bool {
        self.groups.iter().any(|member_of| member_of == group)
    }
}
