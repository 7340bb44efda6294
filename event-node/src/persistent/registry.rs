//! The registry of all groups: creates, finds, updates, deletes and restarts them.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use tokio::sync::{Mutex, mpsc, oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    log::{
        CatchUpSource, Deletion, ExpectedRevision, Filter, FilterError, GroupKey, GroupWrite, Log,
        LogError, StreamRead, WriteRequest,
    },
    persistent::{
        command::{Acknowledgement, ConsumerConnection, ConsumerId, ConsumerOptions, GroupCommand},
        configuration,
        group_task::{GroupStart, GroupTask, MAX_WAITING_COMMANDS},
        settings::{ALL_STREAM, GroupSettings, StartFrom},
        statistics::GroupInfo,
    },
};

/// Maximum number of groups of a node. Each is a task with a buffer.
const MAX_GROUPS: usize = 10_000;

/// An error of a call about groups.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    #[error("the persistent subscription group already exists")]
    Exists,
    #[error("the persistent subscription group does not exist")]
    Missing,
    #[error("the node has {MAX_GROUPS} groups, which is the limit")]
    TooMany,
    #[error("invalid settings of the persistent subscription group: {0}")]
    Settings(&'static str),
    #[error("invalid filter of the persistent subscription group")]
    Filter(#[from] FilterError),
    #[error(transparent)]
    Log(#[from] LogError),
}

/// A handle of a running group. Cheap to clone.
#[derive(Clone)]
pub(crate) struct GroupHandle {
    commands: mpsc::Sender<GroupCommand>,
}

impl GroupHandle {
    /// Connects a consumer. Returns `None` if the group has its maximum number of consumers.
    pub(crate) async fn connect_consumer(
        &self,
        options: ConsumerOptions,
    ) -> Result<Option<ConsumerConnection>, GroupError> {
        self.request_reply(|reply| GroupCommand::Connect(options, reply)).await
    }

    pub(crate) async fn disconnect_consumer(&self, id: ConsumerId) {
        // Sending fails if the group has ended. It then has no consumers.
        drop(self.commands.send(GroupCommand::Disconnect(id)).await);
    }

    /// Passes an acknowledgement to the group. Fails if the group has ended.
    pub(crate) async fn acknowledge_messages(
        &self,
        acknowledgement: Acknowledgement,
    ) -> Result<(), GroupError> {
        self.send_command(GroupCommand::Acknowledge(acknowledgement)).await
    }

    /// Replays parked messages, up to the revision `stop_at` of the parked stream if given.
    pub(crate) async fn replay_parked(&self, stop_at: Option<u64>) -> Result<(), GroupError> {
        self.send_command(GroupCommand::ReplayParked(stop_at)).await
    }

    pub(crate) async fn read_info(&self) -> Result<GroupInfo, GroupError> {
        self.request_reply(GroupCommand::ReadInfo).await
    }

    /// Ends the group and waits until its task has ended.
    async fn end_group(&self) {
        let (reply, dropped) = oneshot::channel();
        if self.commands.send(GroupCommand::Drop(reply)).await.is_ok() {
            // The task drops the sender when it has ended. There is no other reply.
            drop(dropped.await);
        }
    }

    async fn request_reply<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> GroupCommand,
    ) -> Result<T, GroupError> {
        let (reply, received) = oneshot::channel();
        self.send_command(command(reply)).await?;
        received.await.map_err(|_| GroupError::Missing)
    }

    async fn send_command(&self, command: GroupCommand) -> Result<(), GroupError> {
        self.commands.send(command).await.map_err(|_| GroupError::Missing)
    }
}

/// The groups of a node. Cheap to clone.
#[derive(Clone)]
pub(crate) struct GroupRegistry {
    log: Log,
    tasks: TaskTracker,
    stop: CancellationToken,
    groups: Arc<Mutex<Groups>>,
}

#[derive(Default)]
struct Groups {
    running: BTreeMap<GroupKey, Group>,
    /// Streams that have or had a group. Listing the groups of any other stream is an error.
    known_streams: HashSet<String>,
}

struct Group {
    settings: GroupSettings,
    handle: GroupHandle,
}

impl GroupRegistry {
    pub(crate) async fn start(
        log: Log,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Result<Self, GroupError> {
        let registry = Self { log, tasks, stop, groups: Arc::default() };
        registry.load_groups(&mut *registry.groups.lock().await).await?;
        Ok(registry)
    }

    pub(crate) async fn find_group(&self, key: &GroupKey) -> Result<GroupHandle, GroupError> {
        let groups = self.groups.lock().await;
        let group = groups.running.get(key).ok_or(GroupError::Missing)?;
        Ok(group.handle.clone())
    }

    /// Returns all groups, or the groups on one stream. Fails if that stream never had a group.
    pub(crate) async fn list_groups(
        &self,
        stream: Option<&str>,
    ) -> Result<Vec<GroupHandle>, GroupError> {
        let groups = self.groups.lock().await;
        if stream.is_some_and(|stream| !groups.known_streams.contains(stream)) {
            return Err(GroupError::Missing);
        }
        let wanted = groups
            .running
            .iter()
            .filter(|(key, _)| stream.is_none_or(|stream| key.stream == stream))
            .map(|(_, group)| group.handle.clone());
        Ok(wanted.collect())
    }

    pub(crate) async fn create_group(
        &self,
        key: GroupKey,
        settings: GroupSettings,
        user: &str,
    ) -> Result<(), GroupError> {
        // The lock is held until the group runs. Otherwise two concurrent calls could create it
        // twice.
        let mut groups = self.groups.lock().await;
        if groups.running.contains_key(&key) {
            return Err(GroupError::Exists);
        }
        if groups.running.len() >= MAX_GROUPS {
            return Err(GroupError::TooMany);
        }
        validate_settings(&settings)?;
        // The settings are durable before the group runs: a client that was answered finds the
        // group after a crash.
        self.save_settings(&key, &settings).await?;
        self.start_group(&mut groups, key, settings, None).await?;
        self.append_record(&groups, user).await
    }

    /// Replaces the settings except the filter, drops the consumers and restarts the group from its
    /// checkpoint.
    pub(crate) async fn update_group(
        &self,
        key: GroupKey,
        mut settings: GroupSettings,
        user: &str,
    ) -> Result<(), GroupError> {
        // The lock is held until the group runs again. In between, other calls would find a group
        // that has ended.
        let mut groups = self.groups.lock().await;
        let group = groups.running.get(&key).ok_or(GroupError::Missing)?;
        // An update request has no filter in the protocol.
        settings.filter = group.settings.filter.clone();
        validate_settings(&settings)?;
        self.save_settings(&key, &settings).await?;
        // The ending group writes its last checkpoint, so the checkpoint is read only afterwards.
        group.handle.end_group().await;
        let checkpoint = self.read_checkpoint(&key).await?;
        self.start_group(&mut groups, key, settings, checkpoint).await?;
        self.append_record(&groups, user).await
    }

    pub(crate) async fn delete_group(&self, key: GroupKey, user: &str) -> Result<(), GroupError> {
        let mut groups = self.groups.lock().await;
        if !groups.running.contains_key(&key) {
            return Err(GroupError::Missing);
        }
        // The stored group is removed first. If the node crashes here, the group does not start
        // again.
        self.log.write(WriteRequest::Group(GroupWrite::Remove { key: key.clone() })).await?;
        if let Some(group) = groups.running.remove(&key) {
            group.handle.end_group().await;
        }
        let removal = Deletion { stream: key.parked_stream(), expected: ExpectedRevision::Any };
        // The log refuses the deletion if no message was ever parked. That is fine.
        self.log.write(WriteRequest::SoftDelete(removal)).await?;
        self.append_record(&groups, user).await
    }

    /// Appends a record of all groups as changed by `user`. The client is answered after the record is durable. If the
    /// append fails, the change itself stays done.
    async fn append_record(&self, groups: &Groups, user: &str) -> Result<(), GroupError> {
        let named = groups.running.iter().map(|(key, group)| (key, &group.settings));
        Ok(configuration::append_record(&self.log, user, named).await?)
    }

    /// Drops all groups and starts the stored groups.
    pub(crate) async fn restart_groups(&self) -> Result<(), GroupError> {
        let mut groups = self.groups.lock().await;
        for group in std::mem::take(&mut groups.running).into_values() {
            group.handle.end_group().await;
        }
        self.load_groups(&mut groups).await
    }

    async fn load_groups(&self, groups: &mut Groups) -> Result<(), GroupError> {
        for stored in self.log.read_groups().await? {
            let key = stored.key;
            match serde_json::from_str::<GroupSettings>(&stored.settings) {
                Ok(settings) => self.start_group(groups, key, settings, stored.checkpoint).await?,
                // One group with invalid settings must not keep the other groups from starting.
                Err(error) => {
                    tracing::error!(
                        group = %key, %error,
                        "Persistent subscription group not started: stored settings are invalid"
                    );
                }
            }
        }
        Ok(())
    }

    async fn save_settings(
        &self,
        key: &GroupKey,
        settings: &GroupSettings,
    ) -> Result<(), GroupError> {
        let settings = serde_json::to_string(settings)
            .map_err(|_| GroupError::Settings("The settings cannot be stored."))?;
        let save = GroupWrite::Save { key: key.clone(), settings };
        self.log.write(WriteRequest::Group(save)).await?;
        Ok(())
    }

    async fn read_checkpoint(&self, key: &GroupKey) -> Result<Option<u64>, GroupError> {
        let stored = self.log.read_groups().await?;
        Ok(stored.iter().find(|group| group.key == *key).and_then(|group| group.checkpoint))
    }

    async fn start_group(
        &self,
        groups: &mut Groups,
        key: GroupKey,
        settings: GroupSettings,
        checkpoint: Option<u64>,
    ) -> Result<(), GroupError> {
        let source = if key.stream == ALL_STREAM {
            let filter = settings.filter.as_ref().map(Filter::new).transpose()?;
            CatchUpSource::All { filter: filter.map(Arc::new) }
        } else {
            CatchUpSource::Stream { name: key.stream.as_str().into() }
        };
        let next = match checkpoint {
            Some(done) => done.saturating_add(1),
            None => self.first_position(&key, settings.start).await?,
        };
        // Events before `live_from` do not count as live. `next` may lie beyond the end of the
        // source.
        let live_from = self.end_of_source(&key).await?.max(next);
        let (commands, inbox) = mpsc::channel(MAX_WAITING_COMMANDS);
        let start =
            GroupStart { key: key.clone(), settings: settings.clone(), source, next, live_from };
        let task = GroupTask::new(start, checkpoint.is_some(), self.log.clone());
        self.tasks.spawn(task.run(inbox, self.stop.clone()));
        // Never removed: EventStoreDB lists a stream whose groups were deleted as empty, and
        // refuses one that never had a group (recorded as `list of a stream without groups` and
        // `list after the last group was deleted`).
        groups.known_streams.insert(key.stream.clone());
        groups.running.insert(key, Group { settings, handle: GroupHandle { commands } });
        Ok(())
    }

    async fn first_position(&self, key: &GroupKey, start: StartFrom) -> Result<u64, GroupError> {
        let is_over_all = key.stream == ALL_STREAM;
        match start {
            StartFrom::Beginning => Ok(u64::from(is_over_all)),
            StartFrom::At(position) => {
                if is_over_all {
                    self.log.warn_if_far_beyond_end(position, "group");
                }
                Ok(position.max(u64::from(is_over_all)))
            }
            StartFrom::End => self.end_of_source(key).await,
        }
    }

    /// Returns the source position of the next event that is committed.
    async fn end_of_source(&self, key: &GroupKey) -> Result<u64, GroupError> {
        if key.stream == ALL_STREAM {
            return Ok(self.log.head().saturating_add(1));
        }
        Ok(match self.log.read_newest_event(&key.stream).await? {
            StreamRead::Page(page) => page.last.saturating_add(1),
            StreamRead::Missing | StreamRead::Deleted => 0,
        })
    }
}

fn validate_settings(settings: &GroupSettings) -> Result<(), GroupError> {
    if let Some(filter) = &settings.filter {
        Filter::new(filter)?;
    }
    settings.find_problem().map_or(Ok(()), |problem| Err(GroupError::Settings(problem)))
}
