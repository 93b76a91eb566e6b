//! The rules of spark.md 2.1, 2.3, 2.19, and of `idleTimeout`.

use std::collections::BTreeMap;

use highwater_core::BatchId;

use super::*;

/// Event times up to `max`, in milliseconds; none: no row.
fn seen(max: Option<i64>) -> EventTimes {
    max.map_or_else(EventTimes::default, |max| EventTimes {
        count: 1,
        min: 0,
        max: max * 1_000,
        sum: 0,
    })
}

fn batch(time: i64, marks: InForce) -> MicroBatch {
    MicroBatch {
        id: BatchId(0),
        ranges: BTreeMap::new(),
        time: Timestamp::from_millis(time),
        watermark: marks.closes,
        late_watermark: marks.late,
    }
}

fn watermarks(
    delays: impl IntoIterator<Item = i64>,
    policy: WatermarkPolicy,
    idle_ms: Option<u64>,
) -> Watermarks {
    let idle = idle_ms.map(Duration::from_millis);
    Watermarks::new(InForce::default(), delays, policy, idle)
}

/// A micro-batch at `time` in which the inputs had these greatest times; what it ran with, and what comes next.
fn run<const N: usize>(marks: &mut Watermarks, time: i64, maxima: [Option<i64>; N]) -> [i64; 3] {
    let at = Timestamp::from_millis(time);
    let in_force = marks.in_force(at);
    marks.begin(at);
    let next = marks.advance(&batch(time, in_force), maxima.map(seen));
    [in_force.closes.0, in_force.late.0, next.0]
}

#[test]
fn the_watermark_never_falls_and_late_rows_are_judged_by_the_batch_before() {
    let mut marks = watermarks([5], WatermarkPolicy::Min, None);
    for (max, expected, moved) in [
        (None, [0, 0, 0], false),
        (Some(4), [0, 0, 0], false),
        (Some(15), [0, 0, 10], true),
        (Some(10), [10, 0, 10], false),
        (None, [10, 10, 10], false),
        (Some(25), [10, 10, 20], true),
        (None, [20, 10, 20], false),
    ] {
        assert_eq!(run(&mut marks, 0, [max]), expected, "{max:?}");
        assert_eq!(marks.moved(), moved, "{max:?}");
    }
}

#[test]
fn a_time_is_cut_to_milliseconds_before_the_delay_is_taken_off() {
    for (micros, next) in [(9_999, 7), (10_000, 8), (10_999, 8), (-1, 0)] {
        let mut marks = watermarks([2], WatermarkPolicy::Min, None);
        let times = EventTimes {
            max: micros,
            ..seen(Some(0))
        };
        let next_mark = marks.advance(&batch(0, InForce::default()), [times]);
        assert_eq!(next_mark, Watermark(next), "{micros} us");
    }
}

/// min: an input that never spoke holds the watermark at 0, and the slowest decides; max: the fastest does.
#[test]
fn several_inputs_are_combined_by_the_policy() {
    for (policy, expected) in [
        (WatermarkPolicy::Min, [0, 0, 25, 50]),
        (WatermarkPolicy::Max, [50, 90, 90, 90]),
    ] {
        let mut marks = watermarks([0, 0], policy, None);
        let maxima = [
            [Some(50), None],
            [Some(90), None],
            [None, Some(25)],
            [Some(80), Some(50)],
        ];
        let next = maxima.map(|maxima| run(&mut marks, 0, maxima)[2]);
        assert_eq!(next, expected, "{policy}");
        assert_eq!(marks.own().map(|m| m.0).collect::<Vec<_>>(), [90, 50]);
    }
}

#[test]
fn a_restart_keeps_the_watermark_and_forgets_its_inputs() {
    let resumed = InForce {
        closes: Watermark(25),
        late: Watermark(20),
    };
    let mut marks = Watermarks::new(resumed, [0, 0], WatermarkPolicy::Min, None);
    assert!(
        !marks.moved(),
        "no batch without data right after a restart"
    );
    assert_eq!(marks.current(), Some(Watermark(25)));
    assert_eq!(run(&mut marks, 0, [Some(90), None]), [25, 20, 25]);
    assert_eq!(run(&mut marks, 0, [None, Some(60)]), [25, 25, 60]);
}

#[test]
fn a_query_without_a_watermark_has_none() {
    let mut marks = watermarks([], WatermarkPolicy::Min, Some(10));
    assert_eq!(run(&mut marks, 0, []), [0, 0, 0]);
    assert_eq!((marks.current(), marks.deadline()), (None, None));
}

/// Silence of 10 ms: b is left out from 20 on, and counts again when it speaks.
#[test]
fn an_idle_input_is_left_out_until_it_speaks_again() {
    let mut marks = watermarks([0, 0], WatermarkPolicy::Min, Some(10));
    assert_eq!(run(&mut marks, 10, [Some(50), Some(30)]), [0, 0, 30]);
    assert_eq!(run(&mut marks, 19, [Some(70), None]), [30, 0, 30]);
    assert_eq!(marks.deadline(), Some(Timestamp::from_millis(20)));
    assert!(!marks.released(Timestamp::from_millis(19)));
    assert!(marks.released(Timestamp::from_millis(20)));
    assert_eq!(run(&mut marks, 20, [None, None]), [70, 30, 70]);
    assert!(!marks.moved(), "it ran with all there was to release");
    assert_eq!(run(&mut marks, 21, [Some(80), None]), [70, 70, 80]);
    // It rejoins at its own maximum; the watermark does not fall.
    assert_eq!(run(&mut marks, 22, [Some(90), Some(40)]), [80, 70, 80]);
    assert_eq!(run(&mut marks, 23, [None, Some(85)]), [80, 80, 85]);
}

#[test]
fn an_input_that_never_spoke_is_idle_so_long_after_the_first_batch_of_the_run() {
    let mut marks = watermarks([0, 0], WatermarkPolicy::Min, Some(10));
    assert_eq!(marks.deadline(), None, "nothing has begun");
    assert_eq!(run(&mut marks, 100, [Some(50), None]), [0, 0, 0]);
    assert_eq!(marks.deadline(), None, "both fall silent together");
    assert_eq!(run(&mut marks, 109, [Some(60), None]), [0, 0, 0]);
    assert_eq!(marks.deadline(), Some(Timestamp::from_millis(110)));
    assert_eq!(run(&mut marks, 110, [Some(65), None]), [60, 0, 65]);
}

#[test]
fn when_all_are_idle_nothing_changes() {
    let mut marks = watermarks([0, 0], WatermarkPolicy::Min, Some(10));
    assert_eq!(run(&mut marks, 10, [Some(50), Some(30)]), [0, 0, 30]);
    assert_eq!(marks.deadline(), None, "both fall silent together");
    assert_eq!(
        marks.in_force(Timestamp::from_millis(99)).closes,
        Watermark(30)
    );
}

#[test]
fn with_policy_max_silence_has_no_effect() {
    let mut marks = watermarks([0, 0], WatermarkPolicy::Max, Some(10));
    assert_eq!(run(&mut marks, 10, [Some(50), Some(30)]), [0, 0, 50]);
    assert_eq!(run(&mut marks, 19, [None, Some(40)]), [50, 0, 50]);
    assert_eq!(marks.deadline(), None);
}

/// A micro-batch of an earlier run may be old; the silence of this run begins with this run.
#[test]
fn silence_is_counted_in_this_run_only() {
    let mut marks = watermarks([0, 0], WatermarkPolicy::Min, Some(10));
    marks.begin(Timestamp::from_millis(1_000));
    marks.advance(
        &batch(5, InForce::default()),
        [seen(Some(50)), seen(Some(30))],
    );
    let later = Timestamp::from_millis(1_009);
    assert_eq!(marks.in_force(later).closes, Watermark(30));
    assert_eq!(run(&mut marks, 1_009, [Some(70), None]), [30, 0, 30]);
    assert_eq!(marks.deadline(), Some(Timestamp::from_millis(1_010)));
}

#[test]
fn the_final_batch_leaves_the_ordinary_watermark() {
    let mut marks = watermarks([0], WatermarkPolicy::Min, None);
    run(&mut marks, 0, [Some(50)]);
    let last = InForce {
        closes: Watermark::END,
        late: Watermark(50),
    };
    assert_eq!(marks.advance(&batch(0, last), [seen(None)]), Watermark(50));
    assert!(!marks.moved());
}

#[test]
fn a_policy_is_read_as_it_is_written() {
    for policy in [WatermarkPolicy::Min, WatermarkPolicy::Max] {
        assert_eq!(
            policy.to_string().parse::<WatermarkPolicy>().unwrap(),
            policy
        );
    }
    assert!("mean".parse::<WatermarkPolicy>().is_err());
}
