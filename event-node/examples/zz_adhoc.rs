#![allow(warnings, clippy::all)]
use std::{io::Write, time::{Duration, Instant}};
use eventstore::*;
#[tokio::main]
async fn main() {
    let args: Vec<String> = std::env::args().collect();
    match args[1].as_str() {
        "server" => {
            let stop = tokio_util::sync::CancellationToken::new();
            let node = event_node::Node::start(event_node::NodeConfig { listen: args[3].clone(), data: args[2].clone().into(), advertise: None, user_name: "admin".into() },
                service_kit::clock::Clock::new(jiff::Timestamp::now, uuid::Uuid::new_v4), stop).await.unwrap();
            println!("{}", node.address());
            node.finished().await.unwrap();
        }
        "write" => {
            let client = Client::new(format!("esdb://{}?tls=false", args[2]).parse().unwrap()).unwrap();
            let writers: usize = args[3].parse().unwrap();
            let secs: u64 = args[4].parse().unwrap();
            let ledger = std::sync::Arc::new(std::sync::Mutex::new(std::fs::OpenOptions::new().create(true).append(true).open(&args[5]).unwrap()));
            let start = Instant::now();
            let mut set = tokio::task::JoinSet::new();
            for w in 0..writers { let client = client.clone(); let ledger = ledger.clone(); set.spawn(async move {
                let mut n = 0; let mut max = Duration::ZERO;
                while start.elapsed() < Duration::from_secs(secs) {
                    let stream = format!("order-{}", uuid::Uuid::new_v4());
                    let events: Vec<_> = (0..4).map(|_| EventData::binary("OrderQueued", vec![7u8; 300].into()).id(uuid::Uuid::new_v4())).collect();
                    let t = Instant::now();
                    match client.append_to_stream(stream.as_str(), &AppendToStreamOptions::default().stream_state(StreamState::NoStream), events).await {
                        Ok(_) => { n += 1; max = max.max(t.elapsed()); writeln!(ledger.lock().unwrap(), "{stream}").unwrap(); }
                        Err(_) => break,
                    }
                } (n, max) }); }
            let r = set.join_all().await;
            let n: usize = r.iter().map(|x| x.0).sum();
            println!("appends {} in {:?} = {:.0}/s max {:?}", n, start.elapsed(), n as f64 / start.elapsed().as_secs_f64(), r.iter().map(|x| x.1).max());
        }
        "verify" => {
            let client = Client::new(format!("esdb://{}?tls=false", args[2]).parse().unwrap()).unwrap();
            let mut read = client.read_all(&ReadAllOptions::default()).await.unwrap();
            let t = Instant::now();
            let mut counts = std::collections::HashMap::new(); let mut total = 0u64; let mut last = 0;
            while let Some(e) = read.next().await.unwrap() { let e = e.get_original_event().clone(); assert!(e.position.commit == last + 1); last = e.position.commit; let c = counts.entry(e.stream_id().to_string()).or_insert(0u64); assert_eq!(*c, e.revision); *c += 1; total += 1; }
            println!("read {} events {:.0}/s", total, total as f64 / t.elapsed().as_secs_f64());
            let ledger = std::fs::read_to_string(&args[3]).unwrap();
            let missing = ledger.lines().filter(|l| counts.get(*l) != Some(&4)).count();
            println!("ledger {} missing {}", ledger.lines().count(), missing);
        }
        "group" => {
            let client = Client::new(format!("esdb://{}?tls=false", args[2]).parse().unwrap()).unwrap();
            let _ = client.create_persistent_subscription_to_all("g", &PersistentSubscriptionToAllOptions::default().start_from(StreamPosition::Start).filter(SubscriptionFilter::on_event_type().add_prefix("OrderQueued"))).await;
            let mut sub = client.subscribe_to_persistent_subscription_to_all("g", &SubscribeToPersistentSubscriptionOptions::default().buffer_size(64)).await.unwrap();
            let t = Instant::now(); let n = 20000;
            for _ in 0..n { let e = sub.next().await.unwrap(); sub.ack(&e).await.unwrap(); }
            println!("delivered {} = {:.0}/s", n, n as f64 / t.elapsed().as_secs_f64());
        }
        _ => {}
    }
}
