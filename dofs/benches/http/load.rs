//! A load generator with little overhead: HTTP/1.1 over persistent connections, prebuilt requests, and of
//! each response only status and length are parsed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};

/// Maximum time of a response.
const PATIENCE: Duration = Duration::from_secs(30);

/// The requests, connections and duration of a load.
#[derive(Clone)]
pub(crate) struct Load {
    /// Complete requests; each connection sends them in turn.
    pub(crate) requests: Arc<[Vec<u8>]>,
    /// The expected status.
    pub(crate) status: u16,
    pub(crate) connections: usize,
    pub(crate) span: Duration,
    /// Requests per second of all connections together; `None`: unlimited.
    pub(crate) rate: Option<f64>,
}

/// The measurements of a load.
pub(crate) struct Outcome {
    pub(crate) per_second: f64,
    /// Sorted latencies, measured from the time at which each request was due.
    latencies: Vec<Duration>,
    /// Body of the last successful response.
    pub(crate) body: Vec<u8>,
    pub(crate) n_refused: usize,
}

impl Outcome {
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let index = (self.latencies.len() * percent / 100).min(self.latencies.len() - 1);
        self.latencies[index]
    }
}

/// The measurements of one connection.
#[derive(Default)]
struct Part {
    latencies: Vec<Duration>,
    body: Vec<u8>,
    n_refused: usize,
}

impl Load {
    pub(crate) async fn run_against(&self, address: SocketAddr) -> Outcome {
        let begun = Instant::now();
        let mut connections = JoinSet::new();
        for number in 0..self.connections {
            let load = self.clone();
            connections.spawn(async move { load.run_connection(address, number, begun).await });
        }
        let parts = connections.join_all().await;
        let seconds = begun.elapsed().as_secs_f64();
        let n_refused = parts.iter().map(|part| part.n_refused).sum();
        let body = parts.iter().find(|part| !part.body.is_empty()).map(|part| part.body.clone());
        let mut latencies: Vec<_> = parts.into_iter().flat_map(|part| part.latencies).collect();
        latencies.sort_unstable();
        assert!(!latencies.is_empty(), "no response had the expected status");
        let per_second = latencies.len() as f64 / seconds;
        Outcome { per_second, latencies, body: body.unwrap_or_default(), n_refused }
    }

    async fn run_connection(&self, address: SocketAddr, number: usize, begun: Instant) -> Part {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut part = Part::default();
        let mut response = Response::default();
        // Connections are staggered, and start at different requests.
        let between = self.rate.map(|rate| Duration::from_secs_f64(self.connections as f64 / rate));
        let first = between.map(|between| between.mul_f64(number as f64 / self.connections as f64));
        let stride = self.requests.len() * number / self.connections;
        for count in 0.. {
            let due = first.zip(between).map(|(first, between)| begun + first + between * count);
            if let Some(due) = due {
                sleep_until(due.into()).await;
            }
            let asked = due.unwrap_or_else(Instant::now);
            if begun.elapsed() >= self.span {
                break;
            }
            let index = (stride + count as usize) % self.requests.len();
            stream.write_all(&self.requests[index]).await.unwrap();
            let status =
                timeout(PATIENCE, response.read_response(&mut stream)).await.expect("an answer");
            if status == self.status {
                part.latencies.push(asked.elapsed());
            } else {
                part.n_refused += 1;
            }
        }
        part.body = response.body().to_vec();
        part
    }
}

/// The response that a connection is reading.
#[derive(Default)]
struct Response {
    bytes: Vec<u8>,
    head: usize,
}

impl Response {
    async fn read_response(&mut self, stream: &mut TcpStream) -> u16 {
        self.bytes.clear();
        loop {
            assert_ne!(stream.read_buf(&mut self.bytes).await.unwrap(), 0, "the connection closed");
            let Some(end) = self.bytes.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
                continue;
            };
            self.head = end + 4;
            let head = std::str::from_utf8(&self.bytes[..end]).unwrap();
            let (_, after) = head.split_once("content-length: ").expect("a length");
            let length: usize = after.split("\r\n").next().unwrap().parse().unwrap();
            let status = head["HTTP/1.1 ".len()..][..3].parse().unwrap();
            while self.bytes.len() < self.head + length {
                assert_ne!(
                    stream.read_buf(&mut self.bytes).await.unwrap(),
                    0,
                    "the connection closed"
                );
            }
            return status;
        }
    }

    fn body(&self) -> &[u8] {
        &self.bytes[self.head..]
    }
}
