//! Rights that the order system needs at the event store. A store that denies one answers every call
//! of a kind with a refusal, for ever, so roles check theirs when they start.

use std::fmt::{self, Display, Formatter};

use domain::ids::OrderId;
use eventstore::{
    Error as ClientError, EventData, ReadAllOptions, ReadStreamOptions, StreamPosition, StreamState,
};
use uuid::Uuid;

use crate::client::EventLog;
use crate::error::LogError;

/// A revision that no stream of an order reaches.
const IMPOSSIBLE_REVISION: u64 = u32::MAX as u64;

/// Something that the store may deny to the user of the connection string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// Read and subscribe to `$all`; needed to consume a group on it, too.
    ReadAll,
    /// Append to the streams of orders, and read them.
    UseOrders,
    /// Read the messages that a group has set aside.
    ReadParked,
}

impl Display for Right {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ReadAll => "read `$all`",
            Self::UseOrders => "append to and read the streams `order-*`",
            Self::ReadParked => "read the parked messages of a group on `$all`",
        })
    }
}

impl EventLog {
    /// Returns the first of `rights` that the store denies. Changes nothing in the store.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] if the store cannot be reached.
    pub async fn find_denied(
        &self,
        rights: &[Right],
        group: &str,
    ) -> Result<Option<Right>, LogError> {
        for right in rights {
            let tried = match right {
                Right::ReadAll => self.try_reading_all().await,
                Right::UseOrders => self.try_using_orders().await,
                Right::ReadParked => self.parked(group, None, 1).await.map(drop),
            };
            match tried {
                Ok(()) => {}
                Err(LogError::Refused(refused))
                    if matches!(*refused, ClientError::AccessDenied) =>
                {
                    return Ok(Some(*right));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}

impl EventLog {
    async fn try_reading_all(&self) -> Result<(), LogError> {
        let options = ReadAllOptions::default().position(StreamPosition::Start).max_count(1);
        self.call(async |client| client.read_all(&options).await?.next().await.map(drop)).await
    }

    /// Reads a stream that does not exist, and appends to it on a condition that cannot hold: the
    /// store judges the rights first.
    async fn try_using_orders(&self) -> Result<(), LogError> {
        let stream = OrderId(Uuid::nil()).stream();
        let options = ReadStreamOptions::default().max_count(1);
        let read = self.call(async |client| {
            client.read_stream(stream.as_str(), &options).await?.next().await.map(drop)
        });
        match read.await {
            Ok(()) => {}
            Err(LogError::Refused(refused))
                if matches!(*refused, ClientError::ResourceNotFound) => {}
            Err(error) => return Err(error),
        }
        let never = StreamState::StreamRevision(IMPOSSIBLE_REVISION);
        // A store may refuse the nil id before it judges rights.
        let id = Uuid::new_v5(&Uuid::NAMESPACE_OID, stream.as_bytes());
        let event = EventData::binary("RightTried", Vec::new().into()).id(id);
        match self.append_alone(&stream, never, vec![event]).await {
            Ok(_) | Err(LogError::Conflict { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
