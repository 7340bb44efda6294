//! Load that costs little itself: HTTP/1.1 over kept connections, each request written as it is, of
//! each answer only status and length read.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is asked, by how many connections at a time, for how long.
#[derive(Clone)]
pub(crate) struct Load {
    /// Whole requests; each connection takes them in turn.
    pub(crate) requests: Arc<[Vec<u8>]>,
    /// The status of a good answer.
    pub(crate) status: u16,
    pub(crate) connections: usize,
    pub(crate) span: Duration,
    /// Requests per second of all connections together; `None`: as many as are answered.
    pub(crate) rate: Option<f64>,
}

/// What came of it.
pub(crate) struct Outcome {
    pub(crate) per_second: f64,
    /// How long each answer took, from the moment on at which it was due; sorted.
    latencies: Vec<Duration>,
    /// The last good answer's body.
    pub(crate) body: Vec<u8>,
    pub(crate) n_refused: usize,
}

impl Outcome {
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let index = (self.latencies.len() * percent / 100).min(self.latencies.len() - 1);
        self.latencies[index]
    }
}

/// One connection's part of an outcome.
#[derive(Default)]
struct Part {
    latencies: Vec<Duration>,
    body: Vec<u8>,
    n_refused: usize,
}

impl Load {
    pub(crate) async fn on(&self, address: SocketAddr) -> Outcome {
        let begun = Instant::now();
        let mut connections = JoinSet::new();
        for number in 0..self.connections {
            let load = self.clone();
            connections.spawn(async move { load.connection(address, number, begun).await });
        }
        let parts = connections.join_all().await;
        let seconds = begun.elapsed().as_secs_f64();
        let n_refused = parts.iter().map(|it| it.n_refused).sum();
        let body = parts.iter().find(|it| !it.body.is_empty()).map(|it| it.body.clone());
        let mut latencies: Vec<_> = parts.into_iter().flat_map(|it| it.latencies).collect();
        latencies.sort_unstable();
        assert!(!latencies.is_empty(), "nothing was answered as it should be");
        let per_second = latencies.len() as f64 / seconds;
        Outcome { per_second, latencies, body: body.unwrap_or_default(), n_refused }
    }

    async fn connection(&self, address: SocketAddr, number: usize, begun: Instant) -> Part {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut part = Part::default();
        let mut answer = Answer::default();
        // Connections take turns, and none begins where another does.
        let between = self.rate.map(|it| Duration::from_secs_f64(self.connections as f64 / it));
        let first = between.map(|it| it.mul_f64(number as f64 / self.connections as f64));
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
            let status = timeout(PATIENCE, answer.read(&mut stream)).await.expect("an answer");
            if status == self.status {
                part.latencies.push(asked.elapsed());
            } else {
                part.n_refused += 1;
            }
        }
        part.body = answer.body().to_vec();
        part
    }
}

/// The answer that a connection is reading.
#[derive(Default)]
struct Answer {
    bytes: Vec<u8>,
    head: usize,
}

impl Answer {
    async fn read(&mut self, stream: &mut TcpStream) -> u16 {
        self.bytes.clear();
        loop {
            assert_ne!(stream.read_buf(&mut self.bytes).await.unwrap(), 0, "it hung up");
            let Some(end) = self.bytes.windows(4).position(|it| it == b"\r\n\r\n") else {
                continue;
            };
            self.head = end + 4;
            let head = std::str::from_utf8(&self.bytes[..end]).unwrap();
            let (_, after) = head.split_once("content-length: ").expect("a length");
            let length: usize = after.split("\r\n").next().unwrap().parse().unwrap();
            let status = head["HTTP/1.1 ".len()..][..3].parse().unwrap();
            while self.bytes.len() < self.head + length {
                assert_ne!(stream.read_buf(&mut self.bytes).await.unwrap(), 0, "it hung up");
            }
            return status;
        }
    }

    fn body(&self) -> &[u8] {
        &self.bytes[self.head..]
    }
}
