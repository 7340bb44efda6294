//! A warehouse for tests of the HTTP gateway: an HTTP server that fulfils orders, once per idempotency
//! key, with faults on demand.

mod ledger;
mod script;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use domain::ids::OrderId;

use crate::http_server::{Exchange, Handler, Reply, Request, Server, format_response};
use ledger::Ledger;
use script::Script;
use service_kit::mutex::lock;

pub use script::Behaviour;

/// A running warehouse. Its ledger survives [`stop`](Self::stop), but not the drop.
pub struct Warehouse {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: Option<Server>,
}

/// A valid request that the warehouse received.
#[derive(Debug, Clone)]
pub struct Call {
    /// Idempotency key.
    pub key: String,
    pub order_id: OrderId,
    /// Headers; their names are in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: serde_json::Value,
}

#[derive(Default)]
struct Shared {
    script: Mutex<Script>,
    ledger: Mutex<Ledger>,
}

impl Warehouse {
    /// Starts a warehouse on a free port. It fulfils every order.
    pub fn start() -> Self {
        let shared = Arc::new(Shared::default());
        let server = Server::start("127.0.0.1:0", create_handler(&shared));
        Self { address: server.address(), shared, server: Some(server) }
    }

    /// Returns the URL that orders are posted to.
    pub fn url(&self) -> String {
        format!("http://{}/orders", self.address)
    }

    /// Starts an outage: closes all connections and refuses new ones. Requests in progress have no
    /// effect.
    pub fn stop(&mut self) {
        self.server = None;
    }

    /// Ends the outage, on the same address.
    pub fn start_again(&mut self) {
        let address = self.address.to_string();
        self.server.get_or_insert_with(|| Server::start(&address, create_handler(&self.shared)));
    }

    /// Sets the default behaviour.
    pub fn set_default(&self, behaviour: Behaviour) {
        lock(&self.shared.script).default = behaviour;
    }

    /// Sets the behaviour for all calls of an order.
    pub fn set_for_order(&self, order_id: OrderId, behaviour: Behaviour) {
        lock(&self.shared.script).by_order.insert(order_id, behaviour);
    }

    /// Sets the behaviour of the next calls, except for orders with their own behaviour.
    pub fn set_for_next_calls(&self, n_calls: usize, behaviour: &Behaviour) {
        lock(&self.shared.script).next.extend(vec![behaviour.clone(); n_calls]);
    }

    /// Returns the valid calls in order of arrival.
    pub fn calls(&self) -> Vec<Call> {
        lock(&self.shared.ledger).calls.clone()
    }

    /// Returns how often the warehouse did the work for a key.
    pub fn count_effects(&self, key: &str) -> usize {
        lock(&self.shared.ledger).effects.iter().filter(|effect| effect.key == key).count()
    }

    /// Returns the keys for which the work was done more than once. If there are any, the warehouse is
    /// broken.
    pub fn keys_with_more_than_one_effect(&self) -> BTreeSet<String> {
        find_repeated(lock(&self.shared.ledger).effects.iter().map(|effect| effect.key.clone()))
    }

    /// Returns the orders for which the work was done more than once. If there are any, DOFS is broken.
    pub fn orders_with_more_than_one_effect(&self) -> BTreeSet<OrderId> {
        find_repeated(lock(&self.shared.ledger).effects.iter().map(|effect| effect.order_id))
    }

    /// Returns the orders for which the work was done.
    pub fn fulfilled_orders(&self) -> BTreeSet<OrderId> {
        lock(&self.shared.ledger).effects.iter().map(|effect| effect.order_id).collect()
    }
}

fn create_handler(shared: &Arc<Shared>) -> Handler {
    let shared = Arc::clone(shared);
    Arc::new(move |request, exchange| shared.handle_request(request, exchange))
}

impl Shared {
    fn handle_request(&self, request: &Request, exchange: &Exchange) -> Reply {
        let call = match Call::from_request(request) {
            Ok(call) => call,
            Err(reason) => return Reply::Respond(format_response(400, &[], &reason)),
        };
        let behaviour = lock(&self.script).next_behaviour(call.order_id);
        // Recorded before the response: a test may wait for a call that hangs.
        lock(&self.ledger).calls.push(call.clone());
        let work = || lock(&self.ledger).fulfil_once(&call);
        match behaviour {
            Behaviour::Fulfil => Reply::Respond(work()),
            Behaviour::Slow(delay) if exchange.wait_for(delay) => Reply::Respond(work()),
            Behaviour::Refuse { code, reason } => {
                Reply::Respond(lock(&self.ledger).refuse_once(&call, &code, &reason))
            }
            Behaviour::Fail(status) => Reply::Respond(format_response(status, &[], "")),
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
                exchange.wait_for_stop();
                Reply::Close(Vec::new())
            }
        }
    }
}

impl Call {
    /// Parses a request; the error is the violation of the contract.
    fn from_request(request: &Request) -> Result<Self, String> {
        // The contract does not cover the query.
        let start_line = request.start_line.split([' ', '?']).collect::<Vec<_>>();
        if !matches!(start_line[..], ["POST", "/orders", .., "HTTP/1.1"]) {
            return Err(format!("unexpected `{}`", request.start_line));
        }
        let body: serde_json::Value =
            serde_json::from_slice(&request.body).map_err(|error| error.to_string())?;
        let order_id = body["order_id"].as_str().and_then(|id| id.parse().ok());
        let order_id: OrderId = order_id.ok_or("`order_id` is missing")?;
        let key = request.headers.get("idempotency-key").ok_or("`idempotency-key` is missing")?;
        if *key != format!("{order_id}:{}", body["attempt"]) {
            return Err(format!("key `{key}` does not match the order and attempt"));
        }
        Ok(Self { key: key.clone(), order_id, headers: request.headers.clone(), body })
    }
}

/// Returns the bytes of a response that closes the connection, for [`Behaviour::Say`].
pub fn closing_response(status: u16, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
    format_response(status, &[headers, &[("connection", "close")]].concat(), body)
}

fn find_repeated<T: Ord + Clone>(items: impl Iterator<Item = T>) -> BTreeSet<T> {
    let mut seen = BTreeSet::new();
    items.filter(|item| !seen.insert(item.clone())).collect()
}
