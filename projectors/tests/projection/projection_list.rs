//! The list of projections, with rebuilds and without sources.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use projectors::{
    Begin, CUSTOMER_ORDERS, ORDERS, Phase, Progress, Rebuild, SwapAtEnd, open, sample_metrics,
};
use serde_json::{Value, json};
use testkit::wait;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::events::{History, at};
use crate::rebuild::append_orders;
use crate::stores::Database;
use crate::system::{EventStore, Projector, clock, get, log, projected, queries};
use crate::verify::verify;

const PATH: &str = "/v1/ops/projections";

/// Returns whether a rebuild of `orders` runs, and its progress, as the gauges say. Reading resets them.
fn rebuild_gauges(snapshotter: &Snapshotter) -> [f64; 2] {
    let snapshot = snapshotter.snapshot().into_vec();
    ["dofs_rebuild_running", "dofs_rebuild_progress_ratio"].map(|name| {
        let values = snapshot.iter().filter(|(key, ..)| {
            let key = key.key();
            key.name() == name && key.labels().any(|label| label.value() == "orders")
        });
        values.fold(0.0, |_, (_, _, _, value)| match value {
            DebugValue::Gauge(value) => value.0,
            DebugValue::Counter(_) | DebugValue::Histogram(_) => panic!("{name} is a gauge"),
        })
    })
}

/// Checks the list of projections that have applied 204 events, and that no rebuild has touched.
fn check_live_sets(list: &Value) {
    assert_eq!(list["unavailable"], json!({}));
    let [orders, customers] = list["items"].as_array().unwrap().as_slice() else {
        panic!("{list}")
    };
    for (projection, built_by) in [(orders, &ORDERS), (customers, &CUSTOMER_ORDERS)] {
        let (name, version) = (built_by.name, built_by.version);
        assert_eq!(projection["name"], name);
        assert_eq!((&projection["lag_events"], &projection["stuck"]), (&json!(0), &json!(false)));
        assert_eq!(projection["lag_seconds"], 0.0);
        assert!(projection["holder"].is_string(), "{projection}");
        assert_eq!(projection["verification"], Value::Null);
        let [live] = projection["sets"].as_array().unwrap().as_slice() else { panic!("{list}") };
        assert_eq!((&live["set"], &live["state"]), (&json!(name), &json!("live")));
        assert_eq!((&live["version"], &live["events_applied"]), (&json!(version), &json!(204)));
        assert_eq!((&live["last_event_at"], &live["progress"]), (&json!(at(1_920)), &Value::Null));
        assert!(live["position"].is_u64());
    }
    assert_eq!(orders["events_per_second"], 4.0 / 60.0);
    assert_eq!(customers["events_per_second"], Value::Null);
}

/// Checks the list while `orders` is rebuilt half way, and returns the share.
fn check_building_set(list: &Value) -> f64 {
    let sets = &list["items"][0]["sets"];
    assert_eq!((&sets[0]["state"], &sets[1]["state"]), (&json!("live"), &json!("building")));
    assert_eq!(sets[1]["set"], "orders_next");
    assert_eq!(sets[1]["progress"]["updated_at"], json!(at(2_000)));
    let n_applied = sets[1]["events_applied"].as_u64().unwrap();
    assert!((80..=140).contains(&n_applied), "{sets}");
    let share = sets[1]["progress"]["share"].as_f64().unwrap();
    assert!((0.3..0.8).contains(&share), "{sets}");
    assert_eq!(list["items"][1]["sets"].as_array().unwrap().len(), 1);
    share
}

async fn projections_are_listed_while_one_is_rebuilt(database: &Database) {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let events = EventStore::start().await;
    let store = database.read_model().await;
    let customers = store.for_projection(&CUSTOMER_ORDERS);
    append_orders(&events, 1..=40).await;
    // The last full minute, by the clock that shows second 2,000.
    let minute = History::of(41).second(1_920).placed().events();
    events.append(&minute).await;
    let projectors = [&store, &customers].map(|store| Projector::start(&events.log, store, 100));
    projected(&store, 204).await;
    projected(&customers, 204).await;
    let api = queries(Arc::clone(&store), events.log.clone());

    check_live_sets(&get(&api, PATH).await.body);

    // A rebuild that stops half way.
    let (clock, half) = (clock(), CancellationToken::new());
    let (log, begin, at_end) = (&events.log, Begin::Anew, SwapAtEnd::Yes);
    let work = Rebuild { log, store: &store, clock: &clock, begin, at_end, batch_size: 20 };
    let mut progress = |progress: Progress| {
        if progress.phase == Phase::Replay && progress.n_done >= 100 {
            half.cancel();
        }
    };
    let mut found = |_| {};
    let mut work = std::pin::pin!(work.run(&mut progress, &mut found));
    tokio::select! {
        biased;
        () = half.cancelled() => {}
        ended = &mut work => panic!("{ended:?}"),
    }
    let share = check_building_set(&get(&api, PATH).await.body);

    let stop = CancellationToken::new();
    let sampled_projections = [&ORDERS];
    let sampling = sample_metrics(
        &sampled_projections,
        events.log.clone(),
        Arc::clone(&store),
        clock.clone(),
        stop.clone(),
    );
    let sampled = wait::until_async("the rebuild is a metric", async || {
        let [running, ratio] = rebuild_gauges(&snapshotter);
        (running > 0.0).then_some(ratio)
    });
    tokio::select! {
        () = sampling => panic!("the sampler ended"),
        ratio = sampled => assert!((ratio - share).abs() < 0.2, "{ratio}"),
    }

    // The same rebuild goes on.
    assert!(work.await.unwrap().is_live);
    let list = get(&api, PATH).await.body;
    let sets = &list["items"][0]["sets"];
    assert_eq!((&sets[0]["state"], &sets[1]["state"]), (&json!("live"), &json!("previous")));
    assert_eq!(sets[1]["set"], "orders_previous");
    assert_eq!(sets.as_array().unwrap().len(), 2);
    for projector in projectors {
        projector.stop().await.unwrap();
    }
    let (_, findings) = verify(&events, &store, projectors::Repair::Never).await;
    assert_eq!(findings, []);
}

#[tokio::test]
async fn projections_are_listed_while_one_is_rebuilt_in_sqlite() {
    Box::pin(projections_are_listed_while_one_is_rebuilt(&Database::sqlite())).await;
}

#[tokio::test]
async fn projections_are_listed_while_one_is_rebuilt_in_postgres() {
    Box::pin(projections_are_listed_while_one_is_rebuilt(&Database::postgres().await)).await;
}

#[tokio::test]
async fn source_that_is_away_is_named_in_time() {
    let (events, database) = (EventStore::start().await, Database::sqlite());
    let store = database.read_model().await;
    append_orders(&events, 1..=2).await;
    let projector = Projector::start(&events.log, &store, 100);
    projected(&store, 10).await;
    projector.stop().await.unwrap();
    store.next_set(Begin::Anew).await.unwrap();
    let away = || log("esdb://127.0.0.1:9?tls=false");
    let no_database = || open("postgres://nobody@127.0.0.1:9/none").unwrap();

    let begun = Instant::now();
    let list = get(&queries(Arc::clone(&store), away()), PATH).await.body;
    assert!(list["unavailable"]["event_store"].is_string(), "{list}");
    let orders = &list["items"][0];
    assert_eq!((&orders["lag_events"], &orders["stuck"]), (&Value::Null, &Value::Null));
    assert_eq!(orders["sets"][0]["events_applied"], 10);
    assert_eq!(orders["sets"][1]["progress"], json!({"share": 0.0, "updated_at": null}));

    let list = get(&queries(no_database(), events.log.clone()), PATH).await.body;
    assert!(list["unavailable"]["read_model"].is_string(), "{list}");
    assert_eq!(
        (&list["items"][1]["name"], &list["items"][1]["sets"]),
        (&json!("customer_orders"), &json!([]))
    );
    let neither = get(&queries(no_database(), away()), PATH).await;
    assert_eq!(neither.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}
