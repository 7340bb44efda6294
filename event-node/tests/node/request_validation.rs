//! Requests that are not gRPC calls, and calls that a web page could make: the node rejects them.

use conformance::protocol::event_store::client::{Empty, UuidOption, streams, uuid_option};
use prost::bytes::Bytes;

use crate::{
    fixture::TestNode,
    raw_http::{
        APPEND, RawConnection, RawResponse, append_messages, count_stored_events, frame_message,
        send_http1, stream_identifier,
    },
};

const READ: &str = "/event_store.client.streams.Streams/Read";

fn append_body() -> Bytes {
    append_messages("order-1", 1).concat().into()
}

/// Returns the body of a read of the stream `order-1`.
fn read_body() -> Bytes {
    use streams::read_options::{Extent, FilterOption, Source, Stream, stream::RevisionOption};
    let stream = Stream {
        stream_identifier: Some(stream_identifier("order-1")),
        revision_option: Some(RevisionOption::Start(Empty {})),
    };
    let options = streams::ReadOptions {
        source: Some(Source::Stream(stream)),
        extent: Some(Extent::Count(1)),
        filter_option: Some(FilterOption::NoFilter(Empty {})),
        uuid_option: Some(UuidOption { content: Some(uuid_option::Content::String(Empty {})) }),
        ..streams::ReadOptions::default()
    };
    frame_message(&streams::ReadReq { options: Some(options) })
}

#[tokio::test]
async fn http1_requests_append_nothing() {
    let node = TestNode::start().await;
    let body = String::from_utf8(append_body().to_vec()).unwrap();
    let with = |first: &str, headers: &str| {
        let length = body.len();
        format!(
            "{first} HTTP/1.1\r\nhost: localhost\r\n{headers}content-length: {length}\r\n\r\n{body}"
        )
    };
    let grpc = "content-type: application/grpc\r\n";
    let post = format!("POST {APPEND}");
    for (first, headers, wanted) in [
        (post.as_str(), "content-type: text/plain\r\n", 415),
        (&post, "", 415),
        (&post, grpc, 426),
        (&post, "content-type: text/plain\r\norigin: http://evil.example\r\n", 403),
        (&post, "content-type: application/grpc\r\norigin: null\r\n", 403),
        (&format!("PUT {APPEND}"), grpc, 404),
        ("POST /nope", grpc, 404),
        ("GET /nope", "", 404),
        ("GET /", "", 404),
        ("POST /health/live", "", 405),
        ("GET /health/live", "", 204),
        ("GET /health/live", "origin: http://evil.example\r\n", 403),
    ] {
        let response = send_http1(node.port(), &with(first, headers)).await;
        assert!(
            response.starts_with(&format!("HTTP/1.1 {wanted} ")),
            "{first} {headers}: {response}"
        );
        assert!(!response.to_ascii_lowercase().contains("access-control"), "{response}");
    }
    assert_eq!(count_stored_events(&node.client(), "order-").await, 0);
    node.stop().await;
}

#[tokio::test]
async fn foreign_host_is_rejected_on_loopback() {
    let node = TestNode::start().await;
    for (host, wanted) in [
        ("evil.example", 421),
        ("127.0.0.1.evil.example:2113", 421),
        ("localhost:2113", 204),
        ("127.0.0.1", 204),
        ("[::1]:2113", 204),
    ] {
        let request = format!("GET /health/live HTTP/1.1\r\nhost: {host}\r\n\r\n");
        let response = send_http1(node.port(), &request).await;
        assert!(response.starts_with(&format!("HTTP/1.1 {wanted} ")), "{host}: {response}");
    }
    let mut connection = RawConnection::connect(node.port()).await;
    let request = connection.request(APPEND).uri(format!("http://evil.example{APPEND}"));
    let response = connection.call(request, append_body()).await;
    assert_eq!(response.http_status, 421);
    let request = connection.request(APPEND).header("host", "evil.example");
    assert_eq!(connection.call(request, append_body()).await.http_status, 421);
    assert_eq!(count_stored_events(&node.client(), "order-").await, 0);
    node.stop().await;
}

#[tokio::test]
async fn http2_requests_without_grpc_append_nothing() {
    let node = TestNode::start().await;
    let mut connection = RawConnection::connect(node.port()).await;
    let content_type = |connection: &RawConnection, content_type: &str| {
        let mut request = connection.request(APPEND);
        let headers = request.headers_mut().unwrap();
        headers.remove("content-type");
        if !content_type.is_empty() {
            headers.insert("content-type", content_type.parse().unwrap());
        }
        request
    };
    for refused in
        ["", "text/plain", "application/json", "application/grpc-web", "application/grpc+json"]
    {
        let request = content_type(&connection, refused);
        let response = connection.call(request, append_body()).await;
        assert_eq!(response.http_status, 415, "{refused}");
        assert_eq!(response.header("grpc-status"), Some("13"), "{refused}");
    }
    for method in ["GET", "PUT", "DELETE", "OPTIONS", "PATCH"] {
        let request = connection.request(APPEND).method(method);
        assert_eq!(connection.call(request, append_body()).await.http_status, 404, "{method}");
    }
    let request = connection.request(APPEND).header("origin", "http://localhost");
    assert_eq!(connection.call(request, append_body()).await.http_status, 403);
    let request = connection.request("/event_store.client.streams.Streams");
    assert_eq!(connection.call(request, append_body()).await.http_status, 404);
    assert_eq!(count_stored_events(&node.client(), "order-").await, 0);
    for accepted in ["application/grpc+proto", "application/grpc;charset=utf-8"] {
        let request = content_type(&connection, accepted);
        assert_eq!(connection.call(request, append_body()).await.header("grpc-status"), Some("0"));
    }
    assert_eq!(count_stored_events(&node.client(), "order-").await, 2);
    node.stop().await;
}

#[tokio::test]
async fn unreadable_requests_fail_with_specific_codes() {
    let node = TestNode::start().await;
    let mut connection = RawConnection::connect(node.port()).await;
    let too_long = |length: u32| Bytes::from([&[0], &length.to_be_bytes()[..]].concat());
    let (two, half) = ([read_body(), read_body()].concat(), read_body().slice(..9));
    for (body, code, text) in [
        (too_long(17 * 1_024 * 1_024), "8", Some("maximum configured message size")),
        (too_long(u32::MAX), "2", None),
        (Bytes::new(), "13", Some("Incomplete message.")),
        (half, "13", Some("Incomplete message.")),
        (two.into(), "13", Some("Additional data")),
    ] {
        let request = connection.request(READ);
        let response = connection.call(request, body).await;
        assert_eq!(response.header("grpc-status"), Some(code), "{response:?}");
        let message = response.header("grpc-message").unwrap().replace("%20", " ");
        assert!(text.is_none_or(|text| message.contains(text)), "{message}");
    }
    let unknown = connection.request(READ).header("grpc-encoding", "brotli");
    let response = connection.call(unknown, read_body()).await;
    assert_eq!(response.header("grpc-status"), Some("12"));
    assert_eq!(response.header("grpc-accept-encoding"), Some("identity,gzip,deflate"));
    node.stop().await;
}

#[tokio::test]
async fn compressed_requests_are_served() {
    use streams::streams_client::StreamsClient;
    use tonic::codec::CompressionEncoding::{Deflate, Gzip};
    let node = TestNode::start().await;
    for encoding in [Gzip, Deflate] {
        let mut client = StreamsClient::new(node.channel().await).send_compressed(encoding);
        let request: streams::ReadReq = prost::Message::decode(&read_body()[5..]).unwrap();
        let mut responses = client.read(request).await.unwrap().into_inner();
        assert!(responses.message().await.unwrap().is_some(), "{encoding:?}");
    }
    let mut connection = RawConnection::connect(node.port()).await;
    let announced = connection.request(READ).header("grpc-encoding", "gzip");
    assert_eq!(connection.call(announced, read_body()).await.header("grpc-status"), Some("0"));
    node.stop().await;
}

#[tokio::test]
async fn method_lookup_ignores_case_and_reports_unknown_methods() {
    let node = TestNode::start().await;
    let mut connection = RawConnection::connect(node.port()).await;
    for path in [READ.to_lowercase(), format!("{READ}?a=b")] {
        let request = connection.request(&path);
        assert_eq!(
            connection.call(request, read_body()).await.header("grpc-status"),
            Some("0"),
            "{path}"
        );
    }
    let unknown = connection.request("/event_store.client.streams.Streams/Nope");
    let RawResponse { http_status, headers } = connection.call(unknown, read_body()).await;
    assert_eq!(http_status, 200);
    assert_eq!(headers["grpc-status"], "12");
    assert_eq!(headers["grpc-message"], "Method%20is%20unimplemented.");
    node.stop().await;
}

#[tokio::test]
async fn time_limit_ends_calls_with_deadline_exceeded() {
    use streams::read_options::Extent;
    let node = TestNode::start().await;
    let mut connection = RawConnection::connect(node.port()).await;
    let mut subscription: streams::ReadReq = prost::Message::decode(&read_body()[5..]).unwrap();
    subscription.options.as_mut().unwrap().extent = Some(Extent::Subscription(Empty {}));
    let request = connection.request(READ).header("grpc-timeout", "50m");
    let response = connection.call(request, frame_message(&subscription)).await;
    assert_eq!(response.header("grpc-status"), Some("4"));
    assert_eq!(response.header("grpc-message"), Some("Deadline Exceeded"));
    // The limit also ends a call without a response so far.
    let request = connection.request(APPEND).header("grpc-timeout", "50m");
    let mut call = connection.open_call(request).await;
    call.body.send_data(append_body(), false).unwrap();
    assert_eq!(call.read_response().await.header("grpc-status"), Some("4"));
    // An invalid time limit counts as none.
    let request = connection.request(READ).header("grpc-timeout", "1.5S");
    assert_eq!(connection.call(request, read_body()).await.header("grpc-status"), Some("0"));
    assert_eq!(count_stored_events(&node.client(), "order-").await, 0);
    node.stop().await;
}
