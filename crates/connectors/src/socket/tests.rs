//! The socket source against a server in the test.

use std::io::Write;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread;

use arrow::array::AsArray;
use arrow::datatypes::TimestampMicrosecondType;
use datafusion::execution::TaskContext;
use futures::TryStreamExt;
use highwater_core::testing::{ManualClock, contract};
use highwater_core::{
    Error, ErrorKind, Offset, OffsetRange, Options, ReadLimit, ReadRequest, Result, Source,
    SourceContext, Timestamp,
};
use object_store::memory::InMemory;
use object_store::path::Path;

use super::*;

/// A server that gives each connection the next of `texts`, and closes it.
fn server(texts: &[&'static str]) -> std::io::Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let texts = texts.to_vec();
    thread::spawn(move || {
        for text in texts {
            if let Ok((mut stream, _)) = listener.accept() {
                stream.write_all(text.as_bytes()).ok();
            }
        }
    });
    Ok(port)
}

async fn connect(options: SocketSourceOptions, clock: &ManualClock) -> Result<Arc<dyn Source>> {
    let source = SocketSource::try_new(options)?;
    let context = SourceContext {
        store: Arc::new(InMemory::new()),
        folder: Path::from("sources/socket"),
        clock: Arc::new(clock.clone()),
    };
    let own = source.for_query(context).await?;
    Ok(own.expect("a source of the query's own"))
}

/// Waits until there are `lines` lines after `start`, moving the time for those who sleep.
async fn wait(source: &dyn Source, clock: &ManualClock, start: u64, lines: u64) -> Result<Offset> {
    let start = Offset::from(start);
    loop {
        let latest = source.latest_offset(&start, &ReadLimit::All, None).await?;
        if latest.parse::<u64>()? >= start.parse::<u64>()? + lines {
            return Ok(latest);
        }
        if clock.sleepers() > 0 {
            clock.advance("10 seconds")?;
        }
        tokio::task::yield_now().await;
    }
}

async fn read(source: &dyn Source, start: u64, end: u64) -> Result<Vec<String>> {
    let request = ReadRequest {
        range: OffsetRange::new(Offset::from(start), Offset::from(end)),
        projection: None,
        filters: Vec::new(),
        batch_time: Timestamp::default(),
        task: Arc::new(TaskContext::default()),
    };
    let mut lines = Vec::new();
    for stream in source.read(request).await? {
        for batch in stream.try_collect::<Vec<_>>().await? {
            let values = batch.column(0).as_string_view();
            lines.extend(values.iter().flatten().map(str::to_owned));
        }
    }
    Ok(lines)
}

fn clock() -> Result<ManualClock> {
    ManualClock::at("2024-05-01 12:00:00")
}

#[tokio::test]
async fn it_keeps_the_contract() -> Result<()> {
    for include in [false, true] {
        contract::source::all(async || {
            let clock = clock()?;
            let port = server(&["one\ntwo\r\n\nfour"])?;
            let options = SocketSourceOptions::new("127.0.0.1", port).include_timestamp(include);
            let source = connect(options, &clock).await?;
            let still = ManualClock::new(Timestamp::default());
            wait(&*source, &still, 0, 4).await?;
            Ok(source)
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn lines_come_with_their_time_and_without_their_ends() -> Result<()> {
    let clock = clock()?;
    let port = server(&["one\ntwo\r\n\nfour"])?;
    let options = SocketSourceOptions::new("localhost", port).include_timestamp(true);
    let source = connect(options, &clock).await?;
    wait(&*source, &ManualClock::new(Timestamp::default()), 0, 4).await?;
    assert_eq!(read(&*source, 0, 4).await?, ["one", "two", "", "four"]);
    let request = ReadRequest {
        range: OffsetRange::new(Offset::from(3), Offset::from(4)),
        projection: Some(vec![1]),
        filters: Vec::new(),
        batch_time: Timestamp::default(),
        task: Arc::new(TaskContext::default()),
    };
    let stream = source.read(request).await?.pop().expect("a stream");
    let batches: Vec<_> = stream.try_collect().await?;
    let times = batches[0]
        .column(0)
        .as_primitive::<TimestampMicrosecondType>();
    assert_eq!(times.value(0), clock.now().as_micros());
    Ok(())
}

#[tokio::test]
async fn a_broken_connection_is_made_again() -> Result<()> {
    let clock = clock()?;
    let port = server(&["a\nb\n", "", "c\n"])?;
    let source = connect(SocketSourceOptions::new("127.0.0.1", port), &clock).await?;
    wait(&*source, &clock, 0, 3).await?;
    assert_eq!(read(&*source, 0, 3).await?, ["a", "b", "c"]);
    Ok(())
}

#[tokio::test]
async fn committed_lines_are_forgotten() -> Result<()> {
    let port = server(&["a\nb\nc\n"])?;
    let source = connect(SocketSourceOptions::new("127.0.0.1", port), &clock()?).await?;
    wait(&*source, &ManualClock::new(Timestamp::default()), 0, 3).await?;
    source.commit(&Offset::from(2)).await?;
    assert_eq!(read(&*source, 2, 3).await?, ["c"]);
    let error = read(&*source, 1, 3).await.expect_err("forgotten");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    Ok(())
}

#[tokio::test]
async fn a_restart_starts_anew_and_a_rerun_is_empty() -> Result<()> {
    assert!(!connected_to("x\ny\n").await?.traits().replayable);
    // The run before had read up to 57 and did not commit (50, 57].
    let source = connected_to("x\ny\n").await?;
    assert!(read(&*source, 50, 57).await?.is_empty());
    wait(&*source, &ManualClock::new(Timestamp::default()), 57, 2).await?;
    assert_eq!(read(&*source, 57, 59).await?, ["x", "y"]);
    // It had committed 57.
    let source = connected_to("x\ny\n").await?;
    wait(&*source, &ManualClock::new(Timestamp::default()), 57, 2).await?;
    assert_eq!(read(&*source, 57, 59).await?, ["x", "y"]);
    Ok(())
}

async fn connected_to(text: &'static str) -> Result<Arc<dyn Source>> {
    let options = SocketSourceOptions::new("127.0.0.1", server(&[text])?);
    connect(options, &clock()?).await
}

#[tokio::test]
async fn nobody_there_is_told_at_the_start() -> Result<()> {
    // A port that was free a moment ago.
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let options = SocketSourceOptions::new("127.0.0.1", port);
    let error: Error = connect(options, &clock()?).await.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains(&port.to_string()), "{error}");
    Ok(())
}

#[test]
fn options_are_checked_by_name() -> Result<()> {
    let typed = SocketSourceOptions::new("localhost", 9999).include_timestamp(true);
    assert_eq!(
        SocketSourceOptions::try_from(Options::from(typed.clone()))?,
        typed
    );
    for (pairs, name) in [
        (vec![("host", "h")], "port"),
        (vec![("port", "1")], "host"),
        (vec![("host", "h"), ("port", "70000")], "port"),
        (vec![("host", "h"), ("prot", "7")], "prot"),
        (
            vec![("host", "h"), ("port", "7"), ("includeTimestamp", "1")],
            "includeTimestamp",
        ),
    ] {
        let options: Options = pairs.into_iter().collect();
        let error = SocketSourceOptions::try_from(options).expect_err(name);
        assert_eq!(error.option(), Some(name), "{error}");
    }
    Ok(())
}
