//! Listeners, events, progress.

use std::sync::Arc;

use futures::StreamExt;
use parking_lot::Mutex;

use super::support::{House, Numbers, Written};
use crate::{
    QueryEvent, QueryIdleEvent, QueryProgressEvent, QueryStartedEvent, QueryTerminatedEvent,
    StreamingQueryListener,
};

/// Notes what it is told; panics first when it is to.
#[derive(Clone, Default)]
struct Notes {
    notes: Arc<Mutex<Vec<String>>>,
    panics: bool,
}

impl Notes {
    fn note(&self, what: &str) {
        self.notes.lock().push(what.to_owned());
        assert!(!self.panics, "on purpose");
    }
}

impl StreamingQueryListener for Notes {
    fn on_query_started(&self, event: &QueryStartedEvent) {
        self.note(&format!("started {}", event.name.as_deref().unwrap_or("-")));
    }
    fn on_query_progress(&self, event: &QueryProgressEvent) {
        self.note(&format!("progress {}", event.progress.batch_id));
    }
    fn on_query_idle(&self, event: &QueryIdleEvent) {
        self.note(&format!("idle {}", event.timestamp.as_millis()));
    }
    fn on_query_terminated(&self, event: &QueryTerminatedEvent) {
        self.note(&format!("terminated {}", event.exception.is_some()));
    }
}

#[tokio::test]
async fn listeners_hear_of_everything_in_order_even_when_one_panics() {
    let (house, numbers, sink) = (House::new(), Numbers::new(), Written::new());
    let (calm, removed) = (Notes::default(), Notes::default());
    let nervous = Notes {
        panics: true,
        ..Notes::default()
    };
    house.manager.add_listener(nervous.clone());
    house.manager.add_listener(calm.clone());
    let gone = house.manager.add_listener(removed.clone());
    let mut events = house.manager.events();
    let mut request = house.request(&numbers, &sink);
    request.name = Some("q".into());
    let query = house.manager.start(request).await.unwrap();
    assert_eq!(*calm.notes.lock(), ["started q"], "before start() returns");
    assert!(house.manager.remove_listener(gone) && !house.manager.remove_listener(gone));
    numbers.add([1]);
    query.process_all_available().await.unwrap();
    house.clock.advance("9 s").unwrap();
    query.process_all_available().await.unwrap();
    house.clock.advance("1 s").unwrap();
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    query.stop().await.unwrap();
    let mut seen = Vec::new();
    while let Some(event) = events.next().await {
        seen.push(match event {
            QueryEvent::Started(_) => "started",
            QueryEvent::Progress(_) => "progress",
            QueryEvent::Idle(_) => "idle",
            _ => break,
        });
    }
    assert_eq!(seen, ["started", "progress", "idle"]);
    let expected = ["started q", "progress 0", "idle 11000", "terminated false"];
    for notes in [calm, nervous] {
        while notes.notes.lock().len() < expected.len() {
            tokio::task::yield_now().await;
        }
        assert_eq!(*notes.notes.lock(), expected);
    }
    assert_eq!(*removed.notes.lock(), ["started q"]);
}

#[tokio::test]
async fn a_reader_of_events_that_is_too_slow_is_told_what_it_missed() {
    let (house, numbers, sink) = (House::new(), Numbers::new(), Written::new());
    let mut events = house.manager.events();
    let query = house.start(&numbers, &sink).await;
    for n in 0..1_100 {
        numbers.add([n]);
        query.process_all_available().await.unwrap();
    }
    assert!(matches!(events.next().await, Some(QueryEvent::Missed(_))));
    assert_eq!(query.recent_progress().len(), 100);
    query.stop().await.unwrap();
}

#[tokio::test]
async fn progress_tells_what_a_batch_did() {
    let (house, numbers, sink) = (House::new(), Numbers::new(), Written::new());
    let query = house.start(&numbers, &sink).await;
    for rows in [vec![1, 2], vec![3]] {
        numbers.add(rows);
        query.process_all_available().await.unwrap();
    }
    let progress = query.last_progress().unwrap();
    assert_eq!((progress.batch_id.0, progress.num_input_rows), (1, 1));
    assert_eq!((progress.id, progress.run_id), (query.id(), query.run_id()));
    let source = &progress.sources[0];
    assert_eq!(source.description, "Numbers");
    assert_eq!(
        (&source.start_offset, &source.end_offset),
        (&2.into(), &3.into())
    );
    assert_eq!(source.latest_offset, Some(3.into()));
    assert_eq!(progress.sink.num_output_rows, Some(1));
    assert_eq!(query.recent_progress().len(), 2);
    assert!(progress.json().contains(r#""numInputRows":1"#));
    query.stop().await.unwrap();
}
