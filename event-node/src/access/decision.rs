//! Decides whether a caller may read, write or delete a stream, by the rules of EventStoreDB.
//!
//! The first list that exists decides: that of the stream's metadata, that of the stream `$settings`
//! for user or system streams, and then the built-in one.

use crate::{
    access::caller::{ADMINS, Caller},
    log::{DefaultAcls, Right, StreamAcl, described_stream},
    persistent::ALL_STREAM,
};

/// Role of every authenticated user.
const EVERYONE: &str = "$all";

/// Prefix of the names of system streams.
const SYSTEM_PREFIX: char = '$';

/// An action on a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StreamAction {
    Read,
    /// Append events.
    Write,
    Delete,
}

/// Result of the rules that need no access control list.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision<'a> {
    Allow,
    Deny,
    /// The access control list of `stream` decides.
    ByList {
        stream: &'a str,
        right: Right,
    },
}

/// Decides by caller, stream name and action.
pub(super) fn decide<'a>(caller: &Caller, stream: &'a str, action: StreamAction) -> Decision<'a> {
    if matches!(caller, Caller::Unrestricted) {
        return Decision::Allow;
    }
    if !caller.is_authenticated() {
        return Decision::Deny;
    }
    // Also for administrators: `$all` has no events of its own, and a metastream is never deleted.
    let Some((stream, right)) = required_right(stream, action) else { return Decision::Deny };
    if caller.is_admin() { Decision::Allow } else { Decision::ByList { stream, right } }
}

/// Returns the right that an action needs, and the stream whose list grants it. The list of a stream
/// also governs its metastream. Returns `None` if nobody may do it.
fn required_right(stream: &str, action: StreamAction) -> Option<(&str, Right)> {
    match (described_stream(stream), action) {
        (Some(described), StreamAction::Read) => Some((described, Right::ReadMetadata)),
        (Some(described), StreamAction::Write) => Some((described, Right::WriteMetadata)),
        (Some(_), StreamAction::Delete) => None,
        (None, StreamAction::Read) => Some((stream, Right::Read)),
        (None, StreamAction::Write | StreamAction::Delete) if stream == ALL_STREAM => None,
        (None, StreamAction::Write) => Some((stream, Right::Write)),
        (None, StreamAction::Delete) => Some((stream, Right::Delete)),
    }
}

/// Returns whether a list grants the right to the caller.
pub(super) fn is_granted(
    caller: &Caller,
    (stream, right): (&str, Right),
    acl: Option<&StreamAcl>,
    defaults: &DefaultAcls,
) -> bool {
    let is_system = stream.starts_with(SYSTEM_PREFIX);
    let default = if is_system { &defaults.system_streams } else { &defaults.user_streams };
    let listed = [acl, default.as_ref()];
    let roles = listed.into_iter().flatten().find_map(|acl| acl.roles(right));
    let Some(roles) = roles else {
        return !is_system || caller.has_role(ADMINS);
    };
    roles.iter().any(|role| role == EVERYONE || caller.has_role(role))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::access::caller::User;

    fn user(name: &str, groups: &[&str]) -> Caller {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        Caller::User(Arc::new(User { name: name.to_owned(), groups }))
    }

    #[test]
    fn list_of_a_stream_governs_its_metastream() {
        let ada = user("ada", &[]);
        let by_list = |stream, right| Decision::ByList { stream, right };
        assert_eq!(decide(&ada, "a", StreamAction::Read), by_list("a", Right::Read));
        assert_eq!(decide(&ada, "$$a", StreamAction::Read), by_list("a", Right::ReadMetadata));
        assert_eq!(decide(&ada, "$$a", StreamAction::Write), by_list("a", Right::WriteMetadata));
        assert_eq!(
            decide(&ada, "$$$all", StreamAction::Write),
            by_list("$all", Right::WriteMetadata)
        );
        assert_eq!(decide(&ada, "$$a", StreamAction::Delete), Decision::Deny);
    }

    #[test]
    fn administrators_need_no_list_but_cannot_write_to_all() {
        for admin in [user("admin", &[]), user("ada", &["$admins"])] {
            assert_eq!(decide(&admin, "$all", StreamAction::Read), Decision::Allow);
            assert_eq!(decide(&admin, "a", StreamAction::Delete), Decision::Allow);
            assert_eq!(decide(&admin, "$all", StreamAction::Write), Decision::Deny);
            assert_eq!(decide(&admin, "$$a", StreamAction::Delete), Decision::Deny);
        }
        assert_eq!(decide(&Caller::Anonymous, "a", StreamAction::Read), Decision::Deny);
        assert_eq!(decide(&Caller::Unrestricted, "$all", StreamAction::Write), Decision::Allow);
        assert!(user("ops", &[]).is_operator() && user("ada", &["$ops"]).is_operator());
        assert!(!user("ada", &["ops"]).is_operator() && !user("ops", &[]).is_admin());
    }
}
