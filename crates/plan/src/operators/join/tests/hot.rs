//! One key with very many rows on both sides.

use futures::StreamExt;

use super::harness::{Marks, Query, Row, row};

/// The pairs are 10^10 in number (10^8 with the fewer rows of a build without optimization, which takes as many steps
/// for each batch that comes out): nobody can wait for them or hold them. A batch comes out after few steps, and the
/// memory that is held is that of the rows.
#[tokio::test]
async fn a_hot_key_comes_out_batch_by_batch_in_bounded_memory() {
    let count = if cfg!(debug_assertions) {
        10_000
    } else {
        100_000
    };
    let rows: Vec<Row> = (0..count).map(|v| row(0, 7, v)).collect();
    let sql = "SELECT l.v, r.v FROM l JOIN r ON l.k = r.k";
    let mut query = Query::try_new(sql, [false, false], 1_024)
        .await
        .expect("planned");
    let mut stream = query.start(&rows, &rows, Marks::default());
    for _ in 0..20 {
        let batch = stream.next().await.expect("more").expect("rows");
        // A step adds at most a batch of candidates to what was found before.
        assert!(
            (1..=2 * 1_024).contains(&batch.num_rows()),
            "{}",
            batch.num_rows()
        );
    }
    // Nothing else runs for the stream, so dropping it is the end of it; the state is lost, and says so.
    drop(stream);
    let sides = &query.sides;
    let lost = crate::StatefulOperator::changes(&sides[0]).expect_err("lost");
    assert!(
        lost.to_string()
            .contains("was lost in a micro-batch that failed"),
        "{lost}"
    );
}

/// A condition that no pair passes: nothing comes out, and the task still gives others their turn.
#[tokio::test]
async fn a_hot_key_without_a_match_lets_other_tasks_run() {
    let rows: Vec<Row> = (0..3_000).map(|v| row(0, 7, v)).collect();
    let sql = "SELECT l.v, r.v FROM l JOIN r ON l.k = r.k AND l.v > r.v + 10000";
    let mut query = Query::try_new(sql, [false, false], 1_024)
        .await
        .expect("planned");
    let mut stream = query.start(&rows, &rows, Marks::default());
    let mut turns = 0;
    let rest = futures::future::poll_fn(|cx| {
        turns += 1;
        stream.poll_next_unpin(cx)
    });
    assert!(rest.await.is_none());
    // 9·10^6 candidates, 1024 a step, 8 steps a turn: about 1100 turns.
    assert!(turns > 1_000, "{turns}");
}
