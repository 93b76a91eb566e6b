//! Every file of a checkpoint, damaged: the answer is right, or an error names the file. Never a wrong answer.

use highwater_testkit::crash::damage::{Damage, Survival, survive};
use highwater_testkit::crash::drive::World;
use highwater_testkit::crash::target::Batches;
use highwater_testkit::crash::{Disk, FileScript, Lives, Setup, Subject, drive};
use highwater_testkit::rng::Rng;

use super::SEED;

/// The files of which every flipped bit must be found, as all of them are read.
const READ: [&str; 2] = ["ckpt/operators", "ckpt/sources/"];

async fn every_file(name: &str, each: usize) {
    let (script, setup) = (
        FileScript::named(name, SEED).expect("a script"),
        Setup::new(Batches),
    );
    let lives = Lives::default();
    let disk = Disk::new();
    let last = script.steps() - 1;
    let mut world = World::new(&script, &setup, &lives, disk.clone());
    world.go(0..last).await.expect("run");
    let expected = drive(&script, &setup, &lives).await.expect("run").output;
    let mut rng = Rng::new(SEED);
    let (mut right, mut refused) = (0, 0);
    for path in disk.files("ckpt").await.expect("listed") {
        for damage in Damage::of(&disk, &path, &mut rng, each)
            .await
            .expect("listed")
        {
            let what = (path.as_str(), &damage);
            let survived = survive(&script, &setup, &disk, what, &expected).await;
            let survived = survived.unwrap_or_else(|e| panic!("{name}, seed {SEED}: {e}"));
            let read = READ.iter().any(|read| path.starts_with(read));
            if read && matches!(damage, Damage::Flip(_)) {
                assert_eq!(survived, Survival::Refused, "{path} {damage:?}");
            }
            match survived {
                Survival::Right => right += 1,
                Survival::Refused => refused += 1,
            }
        }
    }
    // Of logs only the latest entries are read again where there is no state.
    assert!(
        right > 0 && refused > right,
        "{right} right, {refused} refused"
    );
}

#[tokio::test]
async fn a_damaged_checkpoint_of_windows_is_found_out() {
    every_file("window-append", 2).await;
}

#[tokio::test]
async fn a_damaged_checkpoint_of_sessions_is_found_out() {
    every_file("session-append", 2).await;
}

#[tokio::test]
async fn a_damaged_checkpoint_without_state_is_found_out() {
    every_file("stateless", 2).await;
}
