//! The HTTP API as tests use it.

use std::net::SocketAddr;

use reqwest::blocking::{Client, RequestBuilder};
use reqwest::header::HeaderMap;
use serde_json::{Value, json};

use crate::contract::{self, Exchange};
use crate::wait;

/// A client of one API.
#[derive(Clone)]
pub struct Api {
    http: Client,
    base: String,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl Answer {
    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// A header's value, if it is there.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// An order that is accepted.
pub fn order() -> Value {
    let items = json!([{"product_id": "prod-widget-001", "quantity": 2}]);
    json!({"customer_id": "cust-retail-001", "items": items})
}

impl Api {
    /// The API at an address.
    pub fn new(address: SocketAddr) -> Self {
        Self { http: Client::new(), base: format!("http://{address}") }
    }

    /// Where it is.
    pub fn url(&self) -> String {
        self.base.clone()
    }

    /// A request that is not sent yet.
    pub fn request(&self, method: &str, path: &str) -> RequestBuilder {
        let method = method.parse().expect("the method is one");
        self.http.request(method, format!("{}{path}", self.base))
    }

    /// Sends a request and checks the response against the API description; `Err` without a response.
    ///
    /// # Panics
    /// If the response is not what the description says.
    #[track_caller]
    pub fn try_send(request: RequestBuilder) -> Result<Answer, reqwest::Error> {
        let (client, request) = request.build_split();
        let request = request?;
        let (method, path) = (request.method().clone(), request.url().path().to_owned());
        let response = client.execute(request)?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let answer = Answer { status, headers, text: response.text()? };
        let (method, headers, body) = (method.as_str(), &answer.headers, answer.text.as_str());
        let exchange = Exchange { method, path: &path, status, headers, body };
        if let Err(difference) = contract::check(&exchange) {
            panic!("{method} {path}: not as openapi.json describes: {difference}\n{answer:?}");
        }
        Ok(answer)
    }

    /// Sends a request.
    #[track_caller]
    pub fn send(request: RequestBuilder) -> Answer {
        Self::try_send(request).expect("the API answers")
    }

    /// Reads a resource.
    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        Self::send(self.request("GET", path))
    }

    /// Places an order as JSON.
    #[track_caller]
    pub fn place(&self, order: &Value) -> Answer {
        Self::send(self.request("POST", "/v1/orders").json(order))
    }

    /// Places an order that is accepted, and returns its id.
    #[track_caller]
    pub fn accepted(&self) -> String {
        let answer = self.place(&order());
        assert_eq!(answer.status, 202, "{answer:?}");
        answer.json()["order_id"].as_str().expect("an accepted order has an id").to_owned()
    }

    /// Waits until an order is no longer processing, and returns it.
    #[track_caller]
    pub fn ended(&self, id: &str) -> Value {
        self.order_until(id, "ends", |order| order["status"] != "PROCESSING")
    }

    /// Waits until the read model has an order as one that is no longer processing, and returns it.
    #[track_caller]
    pub fn projected(&self, id: &str) -> Value {
        self.order_until(id, "has ended in the read model", |order| {
            order["status"] != "PROCESSING" && order["source"] == "table"
        })
    }

    #[track_caller]
    fn order_until(&self, id: &str, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        wait::until(&format!("order {id} {what}"), || {
            let request = self.request("GET", &format!("/v1/orders/{id}"));
            // A process that restarts does not answer; one whose store does, may not know yet.
            let answer = Self::try_send(request).ok().filter(|it| it.status == 200)?;
            Some(answer.json()).filter(&is_so)
        })
    }

    /// The types of an order's events.
    #[track_caller]
    pub fn event_types(&self, id: &str) -> Vec<String> {
        let history = self.get(&format!("/v1/orders/{id}/history")).json();
        let events = history["events"].as_array().expect("a history has events");
        events.iter().map(|it| it["type"].as_str().unwrap_or_default().to_owned()).collect()
    }
}
