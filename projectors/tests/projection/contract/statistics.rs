//! The contract of the statistics by minute.

use std::collections::BTreeMap;

use domain::order::Stage;
use projectors::{Completions, Minute};

use super::project;
use crate::events::History;
use crate::stores::Database;

pub(crate) async fn statistics_count_every_event_once(database: &Database) {
    let store = database.read_model().await;
    let failed = History::of(1).second(60).placed().failed(Stage::Fulfillment, "refused");
    let log = [failed.events(), History::of(2).second(119).placed().fulfilled().events()].concat();
    for _again in 0..2 {
        project(&store, &log).await;
        let minutes = store.minutes(0).await.unwrap();
        let completions =
            Completions { n_orders: 2, total_micros: 90_000_000, max_micros: 60_000_000 };
        let happened = Minute {
            n_events: 10,
            n_received: 2,
            n_fulfilled: 1,
            n_failed: 1,
            n_refused: 1,
            completions: Some(completions),
        };
        assert_eq!(minutes, BTreeMap::from([(1, happened)]));
        assert_eq!(minutes[&1].success_rate(), Some(0.5));
        assert_eq!(store.count_orders().await.unwrap().n_failed_fulfillment, 1);
    }

    // The completions of a minute that an earlier release has begun to count stay unknown.
    database.execute("update projection_minutes set n_completed = null where minute = 1").await;
    project(&store, &History::of(4).second(60).placed().fulfilled().events()).await;
    let minute = store.minutes(0).await.unwrap()[&1];
    assert_eq!((minute.n_fulfilled, minute.completions), (2, None));

    // A day and a minute later, older minutes are dropped.
    let later = History::of(3).second(60 * (24 * 60 + 2)).received().events();
    project(&store, &later).await;
    let minutes = store.minutes(0).await.unwrap();
    assert_eq!(minutes.keys().copied().collect::<Vec<_>>(), [24 * 60 + 2]);
}
