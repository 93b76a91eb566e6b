//! Two processes and one checkpoint: one wins, the other stops before it does harm.

use highwater::ErrorKind;
use highwater_core::testing::Fault;
use highwater_testkit::crash::drive::{begin, start};
use highwater_testkit::crash::fight::{Meeting, alone, fight};
use highwater_testkit::crash::target::Batches;
use highwater_testkit::crash::{Disk, FileScript, Setup, Subject};
use highwater_testkit::rng::Rng;

use super::SEED;

fn script() -> FileScript {
    FileScript::named("window-update", SEED).expect("a script")
}

/// The second starts while the first is in its nth operation, for every n, and runs to its end.
#[tokio::test]
async fn a_second_run_starts_at_every_operation_of_the_first() {
    let (script, setup) = (script(), Setup::new(Batches));
    let (expected, operations) = alone(&script, &setup).await.unwrap();
    for first in 1..=operations {
        for when in [Fault::Before, Fault::After] {
            let meeting = Meeting {
                first,
                second: None,
                when,
            };
            let fought = fight(&script, &setup, meeting, &expected).await;
            fought.unwrap_or_else(|e| panic!("seed {SEED}: {e:?}"));
        }
    }
}

/// Both are in the middle of something: the second waits in an operation of its own until the first is at its end.
#[tokio::test]
async fn two_runs_meet_in_any_two_operations() {
    let (script, setup) = (script(), Setup::new(Batches));
    let (expected, operations) = alone(&script, &setup).await.unwrap();
    let mut rng = Rng::new(SEED);
    let number = usize::try_from(operations).unwrap();
    for _ in 0..150 {
        let meeting = Meeting {
            first: rng.below(number) as u64 + 1,
            second: Some(rng.below(number) as u64 + 1),
            when: *rng.pick(&[Fault::Before, Fault::After]),
        };
        let fought = fight(&script, &setup, meeting, &expected).await;
        fought.unwrap_or_else(|e| panic!("seed {SEED}: {e:?}"));
    }
}

/// Whoever is overtaken before or while it says what it intends does not get as far as the sink.
#[tokio::test]
async fn a_run_that_is_overtaken_writes_nothing_to_the_sink() {
    let (script, setup) = (script(), Setup::new(Batches));
    for (operation, when) in [
        ("get_opts ckpt/runs/1", Fault::Before),
        ("get_opts ckpt/runs/1", Fault::After),
        ("put_opts ckpt/offsets/", Fault::Before),
        ("put_opts ckpt/offsets/", Fault::After),
    ] {
        let disk = Disk::new();
        let (ours, theirs) = (disk.beside(), disk.beside());
        script.deliver(&disk, 0).await.unwrap();
        let old = begin(&script, &setup, &ours, true).await.unwrap();
        let old = start(&script, &setup, &ours, &old).await.unwrap();
        old.process_all_available().await.unwrap();
        let before = ours.faulty().operations().len();
        script.deliver(&disk, 1).await.unwrap();
        let mut held = ours.faulty().hold(operation, when);
        let takes_over = async {
            held.reached().await;
            let new = begin(&script, &setup, &theirs, true).await.unwrap();
            let new = start(&script, &setup, &theirs, &new).await.unwrap();
            held.release();
            new
        };
        let (lost, new) = futures::join!(old.process_all_available(), takes_over);
        let lost = lost.unwrap_err();
        assert_eq!(
            lost.kind(),
            ErrorKind::Fenced,
            "{operation} {when:?}: {lost}"
        );
        let after = &ours.faulty().operations()[before..];
        assert!(
            !after.iter().any(|o| o.starts_with("put_opts out/")),
            "{after:#?}"
        );
        new.process_all_available().await.unwrap();
        new.stop().await.unwrap();
    }
}

/// Within a session the first run is stopped (Spark), and the second goes on.
#[tokio::test]
async fn the_same_checkpoint_twice_in_a_session_stops_the_first_run() {
    let (script, setup, disk) = (script(), Setup::new(Batches), Disk::new());
    script.deliver(&disk, 0).await.unwrap();
    let process = begin(&script, &setup, &disk, true).await.unwrap();
    let first = start(&script, &setup, &disk, &process).await.unwrap();
    first.process_all_available().await.unwrap();
    let second = start(&script, &setup, &disk, &process).await.unwrap();
    assert!(!first.is_active() && first.exception().is_none());
    script.deliver(&disk, 1).await.unwrap();
    second.process_all_available().await.unwrap();
    assert_eq!(first.id(), second.id());
    second.stop().await.unwrap();
}
