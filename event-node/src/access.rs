//! Users of the node, their authentication, and their rights to streams.
//!
//! `users_file` stores users with hashed passwords. `authenticator` turns the credentials of a call
//! into its [`Caller`]. `decision` decides by access control lists, which `acl_cache` reads from the
//! log. Without a users file, every caller has all rights, and nothing here runs.

mod acl_cache;
mod authenticator;
mod caller;
mod decision;
mod failed_attempts;
mod password;
mod users_file;

pub use crate::access::users_file::{UserSummary, UsersFile, UsersFileError};
pub(crate) use crate::access::{
    acl_cache::AclCache,
    authenticator::{AuthenticationError, Authenticator},
    caller::Caller,
    decision::StreamAction,
};
