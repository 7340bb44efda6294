//! A warehouse for tests: what the HTTP gateway asks, over real HTTP, with one effect per
//! idempotency key, and with whatever faults a test wants.

mod ledger;
mod script;
mod server;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domain::ids::OrderId;

use ledger::Ledger;
use script::Script;
use server::{Exchange, Handler, Reply, Request, Server};

pub use script::Behaviour;

/// A running warehouse. What it did stays when it is stopped; it is gone when dropped.
pub struct Warehouse {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: Option<Server>,
}

/// A request that reached the warehouse.
#[derive(Debug, Clone)]
pub struct Call {
    /// The idempotency key.
    pub key: String,
    pub order_id: OrderId,
    /// All headers, their names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: serde_json::Value,
}

#[derive(Default)]
struct Shared {
    script: Mutex<Script>,
    ledger: Mutex<Ledger>,
}

impl Warehouse {
    /// Starts one on a free port. It fulfils whatever it is asked.
    pub fn start() -> Self {
        let shared = Arc::new(Shared::default());
        let server = Server::start("127.0.0.1:0", handler(&shared));
        Self { address: server.address(), shared, server: Some(server) }
    }

    /// Where orders are posted to.
    pub fn url(&self) -> String {
        format!("http://{}/orders", self.address)
    }

    /// An outage: connections are closed, new ones refused. Work that is not done stays undone.
    pub fn stop(&mut self) {
        self.server = None;
    }

    /// Starts it again where it was.
    pub fn start_again(&mut self) {
        let address = self.address.to_string();
        self.server.get_or_insert_with(|| Server::start(&address, handler(&self.shared)));
    }

    /// What it does from now on, unless told otherwise for an order or a number of calls.
    pub fn usually(&self, behaviour: Behaviour) {
        lock(&self.shared.script).usual = behaviour;
    }

    /// What it does from now on when it is asked for that order.
    pub fn for_order(&self, order_id: OrderId, behaviour: Behaviour) {
        lock(&self.shared.script).special.insert(order_id, behaviour);
    }

    /// What it does with the next calls for orders that are not special.
    pub fn next(&self, n_calls: usize, behaviour: &Behaviour) {
        lock(&self.shared.script).next.extend(vec![behaviour.clone(); n_calls]);
    }

    /// Every call that keeps the contract, in the order of their arrival.
    pub fn calls(&self) -> Vec<Call> {
        lock(&self.shared.ledger).calls.clone()
    }

    /// How often it did the work for that key.
    pub fn effects(&self, key: &str) -> usize {
        lock(&self.shared.ledger).effects.iter().filter(|it| it.key == key).count()
    }

    /// Keys under which the work was done twice: there are none, or the warehouse is broken.
    pub fn keys_with_more_than_one_effect(&self) -> BTreeSet<String> {
        repeated(lock(&self.shared.ledger).effects.iter().map(|it| it.key.clone()))
    }

    /// Orders for which the work was done twice, under whatever keys: there are none, or DOFS
    /// is broken.
    pub fn orders_with_more_than_one_effect(&self) -> BTreeSet<OrderId> {
        repeated(lock(&self.shared.ledger).effects.iter().map(|it| it.order_id))
    }

    /// Orders for which the work was done.
    pub fn fulfilled_orders(&self) -> BTreeSet<OrderId> {
        lock(&self.shared.ledger).effects.iter().map(|it| it.order_id).collect()
    }
}

fn handler(shared: &Arc<Shared>) -> Handler {
    let shared = Arc::clone(shared);
    Arc::new(move |request, exchange| shared.answer(request, exchange))
}

impl Shared {
    fn answer(&self, request: &Request, exchange: &Exchange) -> Reply {
        let call = match Call::from_request(request) {
            Ok(call) => call,
            Err(why) => return Reply::Answer(message(400, &[], &why)),
        };
        let behaviour = lock(&self.script).behaviour(call.order_id);
        lock(&self.ledger).calls.push(call.clone());
        let work = || lock(&self.ledger).work(&call);
        match behaviour {
            Behaviour::Fulfil => Reply::Answer(work()),
            Behaviour::Slow(delay) if exchange.sleep(delay) => Reply::Answer(work()),
            Behaviour::Refuse { code, reason } => {
                Reply::Answer(lock(&self.ledger).refuse(&call, &code, &reason))
            }
            Behaviour::Fail(status) => Reply::Answer(message(status, &[], "")),
            Behaviour::Say(bytes) => Reply::Close(bytes),
            Behaviour::WorkAndSay(bytes) => {
                work();
                Reply::Close(bytes)
            }
            Behaviour::Drop | Behaviour::Slow(_) => Reply::Close(Vec::new()),
            Behaviour::WorkAndDrop => {
                work();
                Reply::Close(Vec::new())
            }
            Behaviour::Hang => {
                exchange.wait_for_the_end();
                Reply::Close(Vec::new())
            }
        }
    }
}

impl Call {
    /// Reads a request; the error says how it breaks the contract.
    fn from_request(request: &Request) -> Result<Self, String> {
        // What the query of the URL is about is not the contract's business.
        let begin = request.start_line.split([' ', '?']).collect::<Vec<_>>();
        if !matches!(begin[..], ["POST", "/orders", .., "HTTP/1.1"]) {
            return Err(format!("unexpected `{}`", request.start_line));
        }
        let body: serde_json::Value =
            serde_json::from_slice(&request.body).map_err(|error| error.to_string())?;
        let order_id = body["order_id"].as_str().and_then(|it| it.parse().ok());
        let order_id: OrderId = order_id.ok_or("there is no `order_id`")?;
        let key = request.headers.get("idempotency-key").ok_or("there is no key")?;
        if *key != format!("{order_id}:{}", body["attempt"]) {
            return Err(format!("key `{key}` is not that of the order and attempt"));
        }
        Ok(Self { key: key.clone(), order_id, headers: request.headers.clone(), body })
    }
}

/// The bytes of an answer after which the connection is closed, for [`Behaviour::Say`].
pub fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
    message(status, &[headers, &[("connection", "close")]].concat(), body)
}

fn message(status: u16, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
    let header = |(name, value): &(&str, &str)| [name, ": ", value, "\r\n"].concat();
    let headers: String = headers.iter().map(header).collect();
    let length = body.len();
    format!("HTTP/1.1 {status} -\r\ncontent-length: {length}\r\n{headers}\r\n{body}").into_bytes()
}

fn repeated<T: Ord + Clone>(items: impl Iterator<Item = T>) -> BTreeSet<T> {
    let mut seen = BTreeSet::new();
    items.filter(|it| !seen.insert(it.clone())).collect()
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    // A test that panicked while it looked changed nothing.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
