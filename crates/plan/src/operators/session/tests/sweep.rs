//! What rows make of sessions, seen alone.

use super::super::sessions::Sessions;
use super::super::sweep::{Piece, Row, Sweep};

fn rows(times: &[(i64, i64)]) -> Vec<Row> {
    let rows = times.iter().zip(0..);
    rows.map(|((start, end), row)| Row {
        slot: 3,
        start: *start,
        end: *end,
        row,
    })
    .collect()
}

fn stored(times: &[(i64, i64)]) -> Sessions {
    let mut sessions = Sessions::default();
    for (at, (start, end)) in times.iter().enumerate() {
        sessions.replace(3, at..at, *start, *end);
        sessions.set_state((3, at), Box::new([0; 4]));
    }
    sessions
}

#[test]
fn pieces_come_in_the_order_of_their_starts() {
    use Piece::{Old, Run};
    let mut sessions = stored(&[(0, 2), (10, 15), (20, 25), (40, 41)]);
    let rows = rows(&[(5, 8), (6, 11), (12, 13), (15, 20), (17, 18), (30, 32)]);
    let sweep = Sweep::of(&rows, &mut sessions);
    let pieces = [
        (Run(0), 0),
        (Old(0), 0),
        (Run(1), 0),
        (Old(1), 0),
        (Run(2), 1),
    ];
    assert_eq!(sweep.pieces, pieces);
    assert_eq!(sweep.runs, [0, 0, 1, 1, 1, 2]);
    let spans: Vec<_> = sweep
        .groups
        .iter()
        .map(|g| (g.place.1, g.start, g.end, g.replaces))
        .collect();
    assert_eq!(spans, [(1, 5, 25, 2), (2, 30, 32, 0)]);
    let now: Vec<_> = sessions.of(3).iter().map(|s| (s.start, s.end)).collect();
    assert_eq!(now, [(0, 2), (5, 25), (30, 32), (40, 41)]);
}

#[test]
fn one_microsecond_apart_stays_apart() {
    let mut sessions = stored(&[(0, 9), (20, 30)]);
    let sweep = Sweep::of(&rows(&[(10, 19)]), &mut sessions);
    assert_eq!(sweep.groups[0].replaces, 0);
    let sweep = Sweep::of(&rows(&[(9, 10)]), &mut sessions);
    assert_eq!((sweep.groups[0].start, sweep.groups[0].end), (0, 19));
    assert_eq!(sweep.groups[0].replaces, 2);
}

#[test]
fn sessions_are_forgotten_by_their_ends() {
    let mut sessions = stored(&[(0, 2), (10, 15), (20, 25)]);
    assert_eq!(sessions.due(15), [(3, 0), (3, 1)]);
    assert!(sessions.evict(15).is_empty());
    assert_eq!(sessions.len(), 1);
    assert_eq!(sessions.evict(25), [3]);
    let empty = Sessions::default().memory_bytes();
    let lists = 4 * size_of::<Vec<u64>>();
    assert!(
        sessions.memory_bytes() <= empty + 2 * lists,
        "no state is left"
    );
}
