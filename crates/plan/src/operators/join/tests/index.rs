//! The chains of the index against a plain list of rows.

use super::super::index::{CHUNK_ROWS, Index, NONE, slot};
use super::harness::Dice;

/// The rows of `hash`, in the order of their chain.
fn chain(index: &Index, hash: u32) -> Vec<u32> {
    let mut rows = Vec::new();
    let mut at = index.first(hash);
    while at != NONE {
        let (its, next) = index.after(at);
        if its == hash {
            rows.push(at);
        }
        at = next;
    }
    rows
}

/// Rows come and leave in any order, few and many of a hash, so that tables grow and shrink: a chain has the rows of its
/// hash that are there, the oldest first.
#[test]
fn a_chain_has_the_rows_of_its_hash_in_their_order() {
    for seed in 0..4 {
        let mut dice = Dice(seed);
        let mut index = Index::new();
        let mut rows: Vec<(u32, u32)> = Vec::new();
        let spread = [3, 50, 5_000, 100_000][seed as usize];
        let hash = |dice: &mut Dice| (dice.below(spread) as u32).wrapping_mul(0x9E37_79B9);
        for chunk in 0..4 {
            index.open(chunk);
            for place in 0..CHUNK_ROWS {
                let own = (!dice.chance(3)).then(|| hash(&mut dice));
                index.put_in(chunk, own);
                rows.extend(own.map(|own| (own, slot(chunk, place))));
            }
            for _ in 0..CHUNK_ROWS / 3 {
                let (_, at) = rows.remove(dice.below(rows.len()));
                index.take_out(at);
                // Once out, it stays out.
                index.take_out(at);
            }
        }
        for keep in [rows.len() / 2, 40, 0] {
            while rows.len() > keep {
                let (_, at) = rows.swap_remove(dice.below(rows.len()));
                index.take_out(at);
            }
            rows.sort_by_key(|(_, at)| *at);
            for _ in 0..200 {
                let own = hash(&mut dice);
                let expected = rows.iter().filter(|(of, _)| *of == own).map(|(_, at)| *at);
                assert_eq!(
                    chain(&index, own),
                    expected.collect::<Vec<_>>(),
                    "seed {seed}"
                );
            }
        }
        let full = index.memory_bytes();
        (0..4).for_each(|chunk| index.close(chunk));
        // What is left are the least buckets of each table.
        assert!(
            index.memory_bytes() <= 64 * 8 * 4,
            "{full} then {}",
            index.memory_bytes()
        );
    }
}

/// Rows that are gone are dropped from their chunk, and the others move up: chains stay what they were, and take more.
#[test]
fn rows_that_move_stay_in_their_chains() {
    for seed in 10..16 {
        let mut dice = Dice(seed);
        let mut index = Index::new();
        index.open(0);
        // By place: the hash, where the row is in a chain.
        let mut rows: Vec<Option<u32>> = Vec::new();
        for round in 0..6 {
            for _ in 0..dice.below(900) {
                let own =
                    (!dice.chance(5)).then(|| (dice.below(90) as u32).wrapping_mul(0x9E37_79B9));
                index.put_in(0, own);
                rows.push(own);
            }
            let mut kept = Vec::new();
            for (place, own) in std::mem::take(&mut rows).into_iter().enumerate() {
                if dice.chance(40) {
                    index.take_out(slot(0, place));
                } else {
                    kept.push((place, own));
                }
            }
            for (to, (from, own)) in kept.into_iter().enumerate() {
                index.relocate(slot(0, from), slot(0, to));
                rows.push(own);
            }
            index.cut(0, rows.len());
            index.fit();
            for own in (0..90_u32).map(|n| n.wrapping_mul(0x9E37_79B9)) {
                let expected = rows.iter().enumerate().filter(|(_, of)| **of == Some(own));
                let expected: Vec<u32> = expected.map(|(place, _)| slot(0, place)).collect();
                assert_eq!(chain(&index, own), expected, "seed {seed}, round {round}");
            }
        }
    }
}
