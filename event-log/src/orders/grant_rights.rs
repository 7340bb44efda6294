//! Grants a user of the event store the rights that the order system needs, and no others.

use eventstore::{EventData, ResolvedEvent, StreamPosition, StreamState};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::event_log::EventLog;
use crate::store::error::LogError;
use crate::store::group::GroupSettings;

/// Group of the users to whom access control lists do not apply.
const ADMINS: &str = "$admins";
/// Role of every user.
const EVERYONE: &str = "$all";
/// Stream whose newest event holds the lists of streams without an own list, and the event's type.
const SETTINGS: &str = "$settings";
/// Event type of a stream's metadata.
const METADATA_TYPE: &str = "$metadata";
/// Rights in an access control list: read, append, delete, read metadata, write metadata.
const RIGHTS: [&str; 5] = ["$r", "$w", "$d", "$mr", "$mw"];
/// Rights to the streams of orders.
const ORDER_RIGHTS: [&str; 3] = ["$r", "$w", "$mr"];

impl EventLog {
    /// Creates the group unless it exists, and grants `user` the rights to consume it, to have its
    /// parked messages replayed, and to append to and read the streams of orders. Limits the reports of
    /// workers.
    ///
    /// With `restricts_others`, other users lose their rights to streams without an own access
    /// control list, unless the store has such default lists already. The connection's user must be
    /// an administrator.
    pub async fn grant_rights(
        &self,
        user: &str,
        group: &GroupSettings,
        restricts_others: bool,
    ) -> Result<(), LogError> {
        self.store.create_group(group).await?;
        self.edit_object("$$$all", METADATA_TYPE, |metadata| {
            edit_list(metadata, "$acl", |list| grant(list, &["$r"], user, ADMINS));
        })
        .await?;
        let parked = format!("$$$persistentsubscription-$all::{}-parked", group.name);
        self.edit_object(&parked, METADATA_TYPE, |metadata| {
            // A replay needs the right to append.
            edit_list(metadata, "$acl", |list| grant(list, &["$r", "$w"], user, ADMINS));
        })
        .await?;
        self.edit_object(SETTINGS, SETTINGS, |settings| {
            restrict_user_streams(settings, user, restricts_others);
        })
        .await?;
        // Workers limit their reports when they start, but only administrators may change metadata.
        self.limit_reports(Uuid::new_v5(&Uuid::NAMESPACE_OID, b"limit of reports, by a grant"))
            .await
    }

    /// Replaces the object in the newest event of a stream, if `edit` changes it.
    async fn edit_object(
        &self,
        stream: &str,
        event_type: &str,
        edit: impl Fn(&mut Map<String, Value>),
    ) -> Result<(), LogError> {
        let newest = self.store.read_last_event(stream, StreamPosition::End).await?;
        let newest = newest.as_ref().map(ResolvedEvent::get_original_event);
        let stored = newest.and_then(|event| serde_json::from_slice(&event.data).ok());
        let stored: Map<String, Value> = stored.unwrap_or_default();
        let mut edited = stored.clone();
        edit(&mut edited);
        if edited == stored {
            return Ok(());
        }
        // The edit of another administrator since the read is a conflict.
        let (expected, revision) = match newest {
            Some(event) => (StreamState::StreamRevision(event.revision), event.revision + 1),
            None => (StreamState::NoStream, 0),
        };
        let edited = Value::Object(edited);
        let id = format!("{stream}@{revision}:{edited}");
        let id = Uuid::new_v5(&Uuid::NAMESPACE_OID, id.as_bytes());
        let event = EventData::json(event_type, &edited)?.id(id);
        self.store.append_alone(stream, expected, vec![event]).await.map(drop)
    }
}

/// Edits the access control list at `key`. Something else there counts as an empty list.
fn edit_list(
    object: &mut Map<String, Value>,
    key: &str,
    edit: impl FnOnce(&mut Map<String, Value>),
) {
    let mut list =
        if let Some(Value::Object(list)) = object.remove(key) { list } else { Map::new() };
    edit(&mut list);
    object.insert(key.to_owned(), list.into());
}

/// Adds `user` to the roles that have the rights. A right that the list does not mention has the role
/// `default` so far.
fn grant(list: &mut Map<String, Value>, rights: &[&str], user: &str, default: &str) {
    for right in rights {
        let roles = match list.get(*right) {
            None => vec![json!(default)],
            Some(Value::Array(roles)) => roles.clone(),
            Some(role) => vec![role.clone()],
        };
        let has_right = roles.iter().any(|role| role == EVERYONE || role == user);
        if !has_right {
            list.insert((*right).to_owned(), [roles, vec![json!(user)]].concat().into());
        }
    }
}

/// Adds `user` to the default list of user streams. Without default lists, writes lists that grant
/// other users nothing, if `restricts_others`.
fn restrict_user_streams(settings: &mut Map<String, Value>, user: &str, restricts_others: bool) {
    const USER_STREAMS: &str = "$userStreamAcl";
    const SYSTEM_STREAMS: &str = "$systemStreamAcl";
    if settings.is_empty() && restricts_others {
        let admins = || RIGHTS.map(|right| (right.to_owned(), json!([ADMINS])));
        settings.insert(USER_STREAMS.to_owned(), Map::from_iter(admins()).into());
        settings.insert(SYSTEM_STREAMS.to_owned(), Map::from_iter(admins()).into());
    }
    if settings.contains_key(USER_STREAMS) {
        edit_list(settings, USER_STREAMS, |list| grant(list, &ORDER_RIGHTS, user, EVERYONE));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: &Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn grant_keeps_other_roles_and_is_repeatable() {
        let mut list = object(&json!({"$r": "ada", "$w": ["$all"], "$d": []}));
        for _ in 0..2 {
            grant(&mut list, &["$r", "$w", "$d", "$mr"], "dofs", ADMINS);
        }
        let expected = json!({
            "$r": ["ada", "dofs"], "$w": ["$all"], "$d": ["dofs"], "$mr": ["$admins", "dofs"],
        });
        assert_eq!(Value::from(list), expected);
    }

    #[test]
    fn default_lists_are_restricted_once() {
        let mut settings = Map::new();
        restrict_user_streams(&mut settings, "dofs", false);
        assert!(settings.is_empty());
        restrict_user_streams(&mut settings, "dofs", true);
        let user_streams = json!({
            "$r": ["$admins", "dofs"], "$w": ["$admins", "dofs"], "$d": ["$admins"],
            "$mr": ["$admins", "dofs"], "$mw": ["$admins"],
        });
        assert_eq!(settings["$userStreamAcl"], user_streams);
        let mut existing = object(&json!({"$userStreamAcl": {"$r": "team"}}));
        restrict_user_streams(&mut existing, "dofs", true);
        assert_eq!(Value::from(existing), json!({"$userStreamAcl": {"$r": ["team", "dofs"]}}));
    }
}
