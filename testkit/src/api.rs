//! A blocking client of the HTTP API.

use std::net::SocketAddr;

use reqwest::blocking::{Client, RequestBuilder};
use reqwest::header::HeaderMap;
use serde_json::{Value, json};

use crate::contract::{self, Exchange};
use crate::wait;

#[derive(Clone)]
pub struct Api {
    http: Client,
    base: String,
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl Answer {
    /// Returns the body parsed as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// Returns the body of an order that breaks no rule.
pub fn valid_order() -> Value {
    let items = json!([{"product_id": "prod-widget-001", "quantity": 2}]);
    json!({"customer_id": "cust-retail-001", "items": items})
}

impl Api {
    pub fn new(address: SocketAddr) -> Self {
        Self { http: Client::new(), base: format!("http://{address}") }
    }

    pub fn url(&self) -> String {
        self.base.clone()
    }

    /// Returns a request that is not sent yet.
    pub fn request(&self, method: &str, path: &str) -> RequestBuilder {
        let method = method.parse().expect("the method is valid");
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

    #[track_caller]
    pub fn send(request: RequestBuilder) -> Answer {
        Self::try_send(request).expect("the API responds")
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        Self::send(self.request("GET", path))
    }

    /// Places an order as JSON.
    #[track_caller]
    pub fn place(&self, order: &Value) -> Answer {
        Self::send(self.request("POST", "/v1/orders").json(order))
    }

    /// Places a valid order and returns its id.
    #[track_caller]
    pub fn place_valid_order(&self) -> String {
        let answer = self.place(&valid_order());
        assert_eq!(answer.status, 202, "{answer:?}");
        answer.json()["order_id"].as_str().expect("an accepted order has an id").to_owned()
    }

    /// Waits until an order is fulfilled or failed, and returns it.
    #[track_caller]
    pub fn wait_until_ended(&self, id: &str) -> Value {
        self.wait_for_order(id, "ends", |order| order["status"] != "PROCESSING")
    }

    /// Waits until the read model shows an order as fulfilled or failed, and returns it.
    #[track_caller]
    pub fn wait_until_projected(&self, id: &str) -> Value {
        self.wait_for_order(id, "has ended in the read model", |order| {
            order["status"] != "PROCESSING" && order["source"] == "table"
        })
    }

    /// Waits until an order is fulfilled, and returns it.
    #[track_caller]
    pub fn wait_until_fulfilled(&self, id: &str) -> Value {
        self.wait_for_order(id, "is fulfilled", |order| order["status"] == "FULFILLED")
    }

    #[track_caller]
    fn wait_for_order(&self, id: &str, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        wait::until(&format!("order {id} {what}"), || {
            let request = self.request("GET", &format!("/v1/orders/{id}"));
            // A restarting process does not respond, and its read model may not have the order yet.
            let answer = Self::try_send(request).ok().filter(|answer| answer.status == 200)?;
            Some(answer.json()).filter(&is_so)
        })
    }

    /// Returns the types of an order's events.
    #[track_caller]
    pub fn event_types(&self, id: &str) -> Vec<String> {
        let history = self.get(&format!("/v1/orders/{id}/history")).json();
        let events = history["events"].as_array().expect("a history has events");
        events.iter().map(|event| event["type"].as_str().unwrap_or_default().to_owned()).collect()
    }
}
