//! Access rights that the order system needs at the event store. A store that denies one refuses
//! every call of a kind for ever, so roles check their rights when they start.

use std::fmt::{self, Display, Formatter};

use domain::ids::OrderId;
use eventstore::{Error as ClientError, EventData, StreamState};
use uuid::Uuid;

use super::event_log::EventLog;
use crate::store::error::LogError;
use crate::store::read::read_all_after;

/// A revision that no order's stream reaches.
const IMPOSSIBLE_REVISION: u64 = u32::MAX as u64;

/// A right that the store may deny to the user of the connection string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessRight {
    /// Read and subscribe to `$all`; consuming a group on it needs this right, too.
    ReadAll,
    /// Append to and read the streams of orders.
    UseOrders,
    /// Read the parked messages of a group.
    ReadParked,
}

impl Display for AccessRight {
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
    pub async fn find_denied(
        &self,
        rights: &[AccessRight],
        group: &str,
    ) -> Result<Option<AccessRight>, LogError> {
        for right in rights {
            let tried = match right {
                AccessRight::ReadAll => {
                    let options = read_all_after(None).max_count(1);
                    self.store.read_one_of_all(&options).await.map(drop)
                }
                AccessRight::UseOrders => self.try_using_orders().await,
                AccessRight::ReadParked => self.read_parked(group, None, 1).await.map(drop),
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

    /// Reads a stream that does not exist, and appends to it with an expected revision that it cannot
    /// have: the store checks the rights before the revision.
    async fn try_using_orders(&self) -> Result<(), LogError> {
        let stream = OrderId(Uuid::nil()).stream_name();
        self.store.read_first_event(&stream).await?;
        let never = StreamState::StreamRevision(IMPOSSIBLE_REVISION);
        // A store may refuse the nil id before it checks the rights.
        let id = Uuid::new_v5(&Uuid::NAMESPACE_OID, stream.as_bytes());
        let event = EventData::binary("RightTried", Vec::new().into()).id(id);
        match self.store.append_alone(&stream, never, vec![event]).await {
            Ok(_) | Err(LogError::Conflict { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
