//! Requests that no gRPC client sends: HTTP/1.1, and HTTP/2 with any headers and frames.

use std::{error::Error, time::Duration};

use h2::client;
use percent_encoding::percent_decode_str;
use prost::bytes::{BufMut, Bytes, BytesMut};
use reqwest::{Client, Method, redirect::Policy};
use serde_json::{Map, Value, json};
use tokio::{net::TcpStream, task::JoinSet, time::timeout};
use tonic::codegen::http::{HeaderMap, Request};

/// Maximum time of a request over HTTP/1.1.
const HTTP1_LIMIT: Duration = Duration::from_secs(5);

/// Headers and trailers that are compared.
const COMPARED_HEADERS: [&str; 8] = [
    "grpc-status",
    "grpc-message",
    "content-type",
    "exception",
    "stream-name",
    "grpc-accept-encoding",
    "grpc-encoding",
    "allow",
];

/// Why a request got no response.
pub(super) type HttpError = Box<dyn Error + Send + Sync>;

/// A request with any method and headers.
#[derive(Debug)]
pub(super) struct RawRequest<'a> {
    pub(super) address: &'a str,
    /// Method and path.
    pub(super) request: &'a str,
    pub(super) headers: Vec<(String, String)>,
}

impl RawRequest<'_> {
    fn method_and_path(&self) -> (&str, &str) {
        self.request.split_once(' ').unwrap_or((self.request, "/"))
    }

    /// Sends the request over HTTP/1.1. Returns status, content type, location, and whether the
    /// response has a body.
    pub(super) async fn send_http1(&self, body: String) -> Result<Value, HttpError> {
        let client =
            // A redirect is an answer to compare; it is not followed.
            Client::builder().http1_only().redirect(Policy::none()).timeout(HTTP1_LIMIT).build()?;
        let (method, path) = self.method_and_path();
        let url = format!("http://{}{path}", self.address);
        let mut request = client.request(Method::from_bytes(method.as_bytes())?, url).body(body);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let response = request.send().await?;
        let mut out = Map::new();
        out.insert("status".to_owned(), response.status().as_u16().into());
        for name in ["content-type", "location"] {
            if let Some(value) = response.headers().get(name) {
                out.insert(name.replace('-', "_"), value.to_str()?.into());
            }
        }
        out.insert("body".to_owned(), describe_body(response.bytes().await?.len()));
        Ok(Value::Object(out))
    }

    /// Sends the request over HTTP/2 with `frames` as its body. The body stays open if `is_open`.
    /// Returns everything that was received within `limit`.
    pub(super) async fn send_http2(
        &self,
        frames: Vec<Bytes>,
        is_open: bool,
        limit: Duration,
    ) -> Result<Value, HttpError> {
        let (sender, connection) =
            client::handshake(TcpStream::connect(self.address).await?).await?;
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        let (method, path) = self.method_and_path();
        let mut request = Request::builder().method(method);
        request = request.uri(format!("http://{}{path}", self.address));
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let (response, mut body) = sender.ready().await?.send_request(request.body(())?, false)?;
        for frame in frames {
            // h2 queues frames beyond the flow-control window; the driver sends them.
            body.send_data(frame, false)?;
        }
        if !is_open {
            body.send_data(Bytes::new(), true)?;
        }
        // `out` outlives the future: after a time-out it holds what was received until then.
        let mut out = Map::new();
        match timeout(limit, receive_response(response, &mut out)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => drop(out.insert("error".to_owned(), error.to_string().into())),
            Err(_) => drop(out.insert("still_open".to_owned(), true.into())),
        }
        Ok(Value::Object(out))
    }
}

async fn receive_response(
    response: client::ResponseFuture,
    out: &mut Map<String, Value>,
) -> Result<(), h2::Error> {
    let response = response.await?;
    out.insert("status".to_owned(), response.status().as_u16().into());
    out.insert("headers".to_owned(), select_headers(response.headers()));
    let mut body = response.into_body();
    out.insert("ends_with_headers".to_owned(), body.is_end_stream().into());
    let mut bytes = 0;
    out.insert("body".to_owned(), describe_body(bytes));
    while let Some(part) = body.data().await {
        bytes += part?.len();
        out.insert("body".to_owned(), describe_body(bytes));
    }
    if let Some(trailers) = body.trailers().await? {
        out.insert("trailers".to_owned(), select_headers(&trailers));
    }
    Ok(())
}

fn select_headers(headers: &HeaderMap) -> Value {
    let entry = |name: &str| {
        let mut value = String::from_utf8_lossy(headers.get(name)?.as_bytes()).into_owned();
        // Which characters are percent-encoded is up to the server.
        if name == "grpc-message" {
            value = percent_decode_str(&value).decode_utf8_lossy().into_owned();
        }
        Some((name.to_owned(), Value::from(value)))
    };
    Value::Object(COMPARED_HEADERS.into_iter().filter_map(entry).collect())
}

fn describe_body(bytes: usize) -> Value {
    json!(if bytes == 0 { "none" } else { "some" })
}

/// Returns a message in the framing of gRPC. A given `length` is written even if it is wrong.
pub(super) fn frame_message(message: &Bytes, flag: u8, length: Option<u32>) -> Bytes {
    let true_length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    let mut frame = BytesMut::with_capacity(5 + message.len());
    frame.put_u8(flag);
    frame.put_u32(length.unwrap_or(true_length));
    frame.put_slice(message);
    frame.freeze()
}
