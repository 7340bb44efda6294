//! An HTTP server that responds from a list and records its requests.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::http_server::{Exchange, Reply, Request, Server, format_response};
use service_kit::mutex::lock;

/// A running server. Stopped when dropped.
pub struct Stub {
    received: Arc<Mutex<Vec<ReceivedRequest>>>,
    server: Server,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ReceivedRequest {
    /// Method and path with its query, e.g. `GET /v1/orders?limit=1`.
    pub line: String,
    /// Headers; their names are in lower case.
    headers: BTreeMap<String, String>,
    /// The body; null without a body.
    pub body: Value,
}

impl ReceivedRequest {
    fn new(request: &Request) -> Self {
        let (line, _version) = request.start_line.rsplit_once(' ').expect("a client sends HTTP");
        let body = match &*request.body {
            [] => Value::Null,
            body => serde_json::from_slice(body)
                .unwrap_or_else(|_| String::from_utf8_lossy(body).into()),
        };
        Self { line: line.to_owned(), headers: request.headers.clone(), body }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

impl Stub {
    /// Starts a server on a free port. It gives each response (a status and a body) once, in this order,
    /// and then repeats the last one.
    ///
    /// # Panics
    /// If there is no response.
    pub fn start(responses: impl IntoIterator<Item = (u16, Value)>) -> Self {
        let responses: Vec<_> = responses.into_iter().collect();
        assert!(!responses.is_empty(), "a stub needs a response");
        let received = Arc::<Mutex<Vec<_>>>::default();
        let recorded = Arc::clone(&received);
        let handler = move |request: &Request, _: &Exchange| {
            // Locked until the response is chosen: concurrent requests must get different ones.
            let mut recorded = lock(&recorded);
            let (status, body) = &responses[recorded.len().min(responses.len() - 1)];
            recorded.push(ReceivedRequest::new(request));
            let headers = [("content-type", "application/json"), ("connection", "close")];
            Reply::Close(format_response(*status, &headers, &body.to_string()))
        };
        Self { received, server: Server::start("127.0.0.1:0", Arc::new(handler)) }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.server.address())
    }

    /// Returns the requests received so far.
    pub fn received_requests(&self) -> Vec<ReceivedRequest> {
        lock(&self.received).clone()
    }

    /// Returns method and path of the requests received so far.
    pub fn request_lines(&self) -> Vec<String> {
        lock(&self.received).iter().map(|request| request.line.clone()).collect()
    }
}
