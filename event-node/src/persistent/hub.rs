//! All groups of the node: where they are created, found, changed and ended.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use tokio::sync::{Mutex, mpsc, oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    log::{
        CatchUpSource, Deletion, Direction, ExpectedRevision, Filter, FilterError, GroupKey,
        GroupWrite, Log, LogError, StreamQuery, StreamRead, WriteRequest,
    },
    persistent::{
        actor::{Actor, MAX_WAITING_COMMANDS, Start},
        command::{Answer, Command, Connected, GroupInfo, NewConsumer},
        configuration,
        consumers::ConsumerId,
        settings::{ALL, Settings, StartFrom},
    },
};

/// Most groups of a node: each is a task with a buffer.
const MAX_GROUPS: usize = 10_000;

/// Why a group could not be created, found or changed.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    #[error("the group exists")]
    Exists,
    #[error("the group does not exist")]
    Missing,
    #[error("the node has {MAX_GROUPS} groups, which is the limit")]
    TooMany,
    #[error("the group cannot work: {0}")]
    Settings(&'static str),
    #[error("the group's filter cannot be used")]
    Filter(#[from] FilterError),
    #[error(transparent)]
    Log(#[from] LogError),
}

/// A running group.
#[derive(Clone)]
pub(crate) struct GroupHandle {
    commands: mpsc::Sender<Command>,
}

impl GroupHandle {
    /// `Ok(None)` if the group has no room for another consumer.
    pub(crate) async fn connect(
        &self,
        consumer: NewConsumer,
    ) -> Result<Option<Connected>, HubError> {
        self.ask(|reply| Command::Connect(consumer, reply)).await
    }

    pub(crate) async fn disconnect(&self, id: ConsumerId) {
        // A group that is gone has no consumers.
        drop(self.commands.send(Command::Disconnect(id)).await);
    }

    /// `Err` if the group is gone.
    pub(crate) async fn answer(&self, answer: Answer) -> Result<(), HubError> {
        self.commands.send(Command::Answer(answer)).await.map_err(|_| HubError::Missing)
    }

    pub(crate) async fn replay(&self, stop_at: Option<u64>) -> Result<(), HubError> {
        self.commands.send(Command::Replay(stop_at)).await.map_err(|_| HubError::Missing)
    }

    pub(crate) async fn info(&self) -> Result<GroupInfo, HubError> {
        self.ask(Command::Info).await
    }

    async fn end(&self) {
        let (reply, dropped) = oneshot::channel();
        if self.commands.send(Command::Drop(reply)).await.is_ok() {
            // The group says nothing when it has ended: it lets go of the sender.
            drop(dropped.await);
        }
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, HubError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| HubError::Missing)?;
        answer.await.map_err(|_| HubError::Missing)
    }
}

/// The groups of a node. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Hub {
    log: Log,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// The user that all changes count as.
    user_name: String,
    groups: Arc<Mutex<Groups>>,
}

#[derive(Default)]
struct Groups {
    /// By stream and name.
    running: BTreeMap<(String, String), Group>,
    /// Streams that have or had a group: a list for another stream is an error.
    known_streams: HashSet<String>,
}

struct Group {
    settings: Settings,
    handle: GroupHandle,
}

impl Hub {
    /// Starts all groups that are stored.
    pub(crate) async fn start(
        log: Log,
        tasks: TaskTracker,
        stop: CancellationToken,
        user_name: String,
    ) -> Result<Self, HubError> {
        let hub = Self { log, tasks, stop, user_name, groups: Arc::default() };
        hub.load(&mut *hub.groups.lock().await).await?;
        Ok(hub)
    }

    pub(crate) async fn find(&self, key: &GroupKey) -> Result<GroupHandle, HubError> {
        let groups = self.groups.lock().await;
        let group = groups.running.get(&id_of(key)).ok_or(HubError::Missing)?;
        Ok(group.handle.clone())
    }

    /// All groups, or those of one stream; an error if that never had one.
    pub(crate) async fn list(&self, stream: Option<&str>) -> Result<Vec<GroupHandle>, HubError> {
        let groups = self.groups.lock().await;
        if stream.is_some_and(|stream| !groups.known_streams.contains(stream)) {
            return Err(HubError::Missing);
        }
        let wanted = groups
            .running
            .iter()
            .filter(|(id, _)| stream.is_none_or(|stream| id.0 == stream))
            .map(|(_, group)| group.handle.clone());
        Ok(wanted.collect())
    }

    pub(crate) async fn create(&self, key: GroupKey, settings: Settings) -> Result<(), HubError> {
        let mut groups = self.groups.lock().await;
        if groups.running.contains_key(&id_of(&key)) {
            return Err(HubError::Exists);
        }
        if groups.running.len() >= MAX_GROUPS {
            return Err(HubError::TooMany);
        }
        check(&settings)?;
        self.save(&key, &settings).await?;
        self.run(&mut groups, key, settings, None).await?;
        self.record(&groups).await
    }

    /// Replaces the settings but for the filter, drops the consumers and begins again from the
    /// checkpoint.
    pub(crate) async fn update(
        &self,
        key: GroupKey,
        mut settings: Settings,
    ) -> Result<(), HubError> {
        let mut groups = self.groups.lock().await;
        let group = groups.running.get(&id_of(&key)).ok_or(HubError::Missing)?;
        settings.filter = group.settings.filter.clone();
        check(&settings)?;
        self.save(&key, &settings).await?;
        group.handle.end().await;
        let checkpoint = self.stored_checkpoint(&key).await?;
        self.run(&mut groups, key, settings, checkpoint).await?;
        self.record(&groups).await
    }

    pub(crate) async fn delete(&self, key: GroupKey) -> Result<(), HubError> {
        let mut groups = self.groups.lock().await;
        if !groups.running.contains_key(&id_of(&key)) {
            return Err(HubError::Missing);
        }
        self.log.write(WriteRequest::Group(GroupWrite::Remove { key: key.clone() })).await?;
        if let Some(group) = groups.running.remove(&id_of(&key)) {
            group.handle.end().await;
        }
        let removal = Deletion { stream: key.parked_stream(), expected: ExpectedRevision::Any };
        // Refused when nothing was ever parked.
        self.log.write(WriteRequest::SoftDelete(removal)).await?;
        self.record(&groups).await
    }

    /// Records what groups there are now. Clients are answered when that is durable; if it fails,
    /// the change itself is done.
    async fn record(&self, groups: &Groups) -> Result<(), HubError> {
        let named = groups
            .running
            .iter()
            .map(|((stream, name), group)| (stream.as_str(), name.as_str(), &group.settings));
        Ok(configuration::record(&self.log, &self.user_name, named).await?)
    }

    /// Drops all groups and starts them again as they are stored.
    pub(crate) async fn restart(&self) -> Result<(), HubError> {
        let mut groups = self.groups.lock().await;
        for group in std::mem::take(&mut groups.running).into_values() {
            group.handle.end().await;
        }
        self.load(&mut groups).await
    }

    async fn load(&self, groups: &mut Groups) -> Result<(), HubError> {
        for stored in self.log.read_groups().await? {
            let key = GroupKey { stream: stored.stream, name: stored.name };
            match serde_json::from_str::<Settings>(&stored.settings) {
                Ok(settings) => self.run(groups, key, settings, stored.checkpoint).await?,
                // One group that cannot be read must not keep the others from running.
                Err(error) => tracing::error!(group = %key, %error, "stored settings unreadable"),
            }
        }
        Ok(())
    }

    async fn save(&self, key: &GroupKey, settings: &Settings) -> Result<(), HubError> {
        let settings = serde_json::to_string(settings)
            .map_err(|_| HubError::Settings("The settings cannot be stored."))?;
        let save = GroupWrite::Save { key: key.clone(), settings };
        self.log.write(WriteRequest::Group(save)).await?;
        Ok(())
    }

    async fn stored_checkpoint(&self, key: &GroupKey) -> Result<Option<u64>, HubError> {
        let stored = self.log.read_groups().await?;
        let is_it =
            |group: &&crate::log::StoredGroup| group.stream == key.stream && group.name == key.name;
        Ok(stored.iter().find(is_it).and_then(|group| group.checkpoint))
    }

    async fn run(
        &self,
        groups: &mut Groups,
        key: GroupKey,
        settings: Settings,
        checkpoint: Option<u64>,
    ) -> Result<(), HubError> {
        let source = if key.stream == ALL {
            let filter = settings.filter.as_ref().map(Filter::new).transpose()?;
            CatchUpSource::All { filter: filter.map(Arc::new) }
        } else {
            CatchUpSource::Stream { name: key.stream.as_str().into() }
        };
        let next = match checkpoint {
            Some(done) => done.saturating_add(1),
            None => self.first_place(&key, settings.start).await?,
        };
        let live_from = self.end_of_source(&key).await?.max(next);
        let (commands, inbox) = mpsc::channel(MAX_WAITING_COMMANDS);
        let start = Start { key: key.clone(), settings: settings.clone(), source, next, live_from };
        let actor = Actor::new(start, checkpoint.is_some(), self.log.clone());
        self.tasks.spawn(actor.run(inbox, self.stop.clone()));
        groups.known_streams.insert(key.stream.clone());
        groups.running.insert(id_of(&key), Group { settings, handle: GroupHandle { commands } });
        Ok(())
    }

    async fn first_place(&self, key: &GroupKey, start: StartFrom) -> Result<u64, HubError> {
        let is_over_all = key.stream == ALL;
        match start {
            StartFrom::Beginning => Ok(u64::from(is_over_all)),
            StartFrom::At(place) => {
                if is_over_all {
                    self.log.warn_if_far_beyond_end(place, "group");
                }
                Ok(place.max(u64::from(is_over_all)))
            }
            StartFrom::End => self.end_of_source(key).await,
        }
    }

    /// The place of the next event that is committed to what the group reads.
    async fn end_of_source(&self, key: &GroupKey) -> Result<u64, HubError> {
        if key.stream == ALL {
            return Ok(self.log.head().saturating_add(1));
        }
        let newest = StreamQuery {
            stream: key.stream.clone(),
            direction: Direction::Backwards,
            from: u64::MAX,
            limit: 1,
            now_ticks: self.log.now_ticks(),
        };
        Ok(match self.log.read_stream(newest).await? {
            StreamRead::Page(page) => page.last.saturating_add(1),
            StreamRead::Missing | StreamRead::Deleted => 0,
        })
    }
}

fn check(settings: &Settings) -> Result<(), HubError> {
    if let Some(filter) = &settings.filter {
        Filter::new(filter)?;
    }
    settings.problem().map_or(Ok(()), |problem| Err(HubError::Settings(problem)))
}

fn id_of(key: &GroupKey) -> (String, String) {
    (key.stream.clone(), key.name.clone())
}
