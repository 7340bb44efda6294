//! Requests that are no gRPC calls, and calls that a web page could make: nothing is carried out.

use prost::bytes::Bytes;

use crate::{
    bare::{APPEND, Answered, Bare, append_messages, framed, http1, identifier, stored_events},
    fixture::TestNode,
    wire::event_store::client::{Empty, UuidOption, streams, uuid_option},
};

const READ: &str = "/event_store.client.streams.Streams/Read";

fn whole_append() -> Bytes {
    append_messages("order-1", 1).concat().into()
}

/// A read of the stream `order-1`.
fn read() -> Bytes {
    use streams::read_options::{Extent, FilterOption, Source, Stream, stream::RevisionOption};
    let stream = Stream {
        stream_identifier: Some(identifier("order-1")),
        revision_option: Some(RevisionOption::Start(Empty {})),
    };
    let options = streams::ReadOptions {
        source: Some(Source::Stream(stream)),
        extent: Some(Extent::Count(1)),
        filter_option: Some(FilterOption::NoFilter(Empty {})),
        uuid_option: Some(UuidOption { content: Some(uuid_option::Content::String(Empty {})) }),
        ..streams::ReadOptions::default()
    };
    framed(&streams::ReadReq { options: Some(options) })
}

#[tokio::test]
async fn requests_over_http1_append_nothing() {
    let node = TestNode::start().await;
    let body = String::from_utf8(whole_append().to_vec()).unwrap();
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
        let answer = http1(node.port(), &with(first, headers)).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {wanted} ")), "{first} {headers}: {answer}");
        assert!(!answer.to_ascii_lowercase().contains("access-control"), "{answer}");
    }
    assert_eq!(stored_events(&node.client(), "order-").await, 0);
    node.stop().await;
}

#[tokio::test]
async fn a_name_that_is_not_this_machine_reaches_nothing_on_loopback() {
    let node = TestNode::start().await;
    for (host, wanted) in [
        ("evil.example", 421),
        ("127.0.0.1.evil.example:2113", 421),
        ("localhost:2113", 204),
        ("127.0.0.1", 204),
        ("[::1]:2113", 204),
    ] {
        let request = format!("GET /health/live HTTP/1.1\r\nhost: {host}\r\n\r\n");
        let answer = http1(node.port(), &request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {wanted} ")), "{host}: {answer}");
    }
    let mut bare = Bare::connect(node.port()).await;
    let request = bare.request(APPEND).uri(format!("http://evil.example{APPEND}"));
    let answered = bare.call(request, whole_append()).await;
    assert_eq!(answered.http_status, 421);
    let request = bare.request(APPEND).header("host", "evil.example");
    assert_eq!(bare.call(request, whole_append()).await.http_status, 421);
    assert_eq!(stored_events(&node.client(), "order-").await, 0);
    node.stop().await;
}

#[tokio::test]
async fn http2_requests_that_are_no_grpc_append_nothing() {
    let node = TestNode::start().await;
    let mut bare = Bare::connect(node.port()).await;
    let content_type = |bare: &Bare, content_type: &str| {
        let mut request = bare.request(APPEND);
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
        let request = content_type(&bare, refused);
        let answered = bare.call(request, whole_append()).await;
        assert_eq!(answered.http_status, 415, "{refused}");
        assert_eq!(answered.header("grpc-status"), Some("13"), "{refused}");
    }
    for method in ["GET", "PUT", "DELETE", "OPTIONS", "PATCH"] {
        let request = bare.request(APPEND).method(method);
        assert_eq!(bare.call(request, whole_append()).await.http_status, 404, "{method}");
    }
    let request = bare.request(APPEND).header("origin", "http://localhost");
    assert_eq!(bare.call(request, whole_append()).await.http_status, 403);
    let request = bare.request("/event_store.client.streams.Streams");
    assert_eq!(bare.call(request, whole_append()).await.http_status, 404);
    assert_eq!(stored_events(&node.client(), "order-").await, 0);
    for accepted in ["application/grpc+proto", "application/grpc;charset=utf-8"] {
        let request = content_type(&bare, accepted);
        assert_eq!(bare.call(request, whole_append()).await.header("grpc-status"), Some("0"));
    }
    assert_eq!(stored_events(&node.client(), "order-").await, 2);
    node.stop().await;
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_with_the_right_code() {
    let node = TestNode::start().await;
    let mut bare = Bare::connect(node.port()).await;
    let too_long = |length: u32| Bytes::from([&[0], &length.to_be_bytes()[..]].concat());
    let (two, half) = ([read(), read()].concat(), read().slice(..9));
    for (body, code, text) in [
        (too_long(17 * 1_024 * 1_024), "8", Some("maximum configured message size")),
        (too_long(u32::MAX), "2", None),
        (Bytes::new(), "13", Some("Incomplete message.")),
        (half, "13", Some("Incomplete message.")),
        (two.into(), "13", Some("Additional data")),
    ] {
        let request = bare.request(READ);
        let answered = bare.call(request, body).await;
        assert_eq!(answered.header("grpc-status"), Some(code), "{answered:?}");
        let message = answered.header("grpc-message").unwrap().replace("%20", " ");
        assert!(text.is_none_or(|text| message.contains(text)), "{message}");
    }
    let unknown = bare.request(READ).header("grpc-encoding", "brotli");
    let answered = bare.call(unknown, read()).await;
    assert_eq!(answered.header("grpc-status"), Some("12"));
    assert_eq!(answered.header("grpc-accept-encoding"), Some("identity,gzip,deflate"));
    node.stop().await;
}

#[tokio::test]
async fn compressed_requests_are_answered() {
    use streams::streams_client::StreamsClient;
    use tonic::codec::CompressionEncoding::{Deflate, Gzip};
    let node = TestNode::start().await;
    for encoding in [Gzip, Deflate] {
        let mut client = StreamsClient::new(node.channel().await).send_compressed(encoding);
        let request: streams::ReadReq = prost::Message::decode(&read()[5..]).unwrap();
        let mut responses = client.read(request).await.unwrap().into_inner();
        assert!(responses.message().await.unwrap().is_some(), "{encoding:?}");
    }
    let mut bare = Bare::connect(node.port()).await;
    let announced = bare.request(READ).header("grpc-encoding", "gzip");
    assert_eq!(bare.call(announced, read()).await.header("grpc-status"), Some("0"));
    node.stop().await;
}

#[tokio::test]
async fn methods_are_found_in_any_case_and_unknown_ones_are_named_so() {
    let node = TestNode::start().await;
    let mut bare = Bare::connect(node.port()).await;
    for path in [READ.to_lowercase(), format!("{READ}?a=b")] {
        let request = bare.request(&path);
        assert_eq!(bare.call(request, read()).await.header("grpc-status"), Some("0"), "{path}");
    }
    let unknown = bare.request("/event_store.client.streams.Streams/Nope");
    let Answered { http_status, headers } = bare.call(unknown, read()).await;
    assert_eq!(http_status, 200);
    assert_eq!(headers["grpc-status"], "12");
    assert_eq!(headers["grpc-message"], "Method%20is%20unimplemented.");
    node.stop().await;
}

#[tokio::test]
async fn a_time_limit_ends_subscriptions_with_deadline_exceeded() {
    use streams::read_options::Extent;
    let node = TestNode::start().await;
    let mut bare = Bare::connect(node.port()).await;
    let mut subscription: streams::ReadReq = prost::Message::decode(&read()[5..]).unwrap();
    subscription.options.as_mut().unwrap().extent = Some(Extent::Subscription(Empty {}));
    let request = bare.request(READ).header("grpc-timeout", "50m");
    let answered = bare.call(request, framed(&subscription)).await;
    assert_eq!(answered.header("grpc-status"), Some("4"));
    assert_eq!(answered.header("grpc-message"), Some("Deadline Exceeded"));
    // Also of a call that has no answer yet.
    let request = bare.request(APPEND).header("grpc-timeout", "50m");
    let mut call = bare.open(request).await;
    call.body.send_data(whole_append(), false).unwrap();
    assert_eq!(call.answered().await.header("grpc-status"), Some("4"));
    // What is no time is no limit.
    let request = bare.request(READ).header("grpc-timeout", "1.5S");
    assert_eq!(bare.call(request, read()).await.header("grpc-status"), Some("0"));
    assert_eq!(stored_events(&node.client(), "order-").await, 0);
    node.stop().await;
}
