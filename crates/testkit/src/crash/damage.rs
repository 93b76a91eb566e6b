//! Bit flips, cuts and mix-ups of one file: what disks and people do to a checkpoint.

use bytes::Bytes;
use highwater::{Error, ErrorKind, Result};

use super::drive::{Lives, World};
use super::target::{Output, Setup};
use super::{Disk, Subject};
use crate::rng::Rng;

/// What happens to a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    /// One bit of it changes.
    Flip(usize),
    /// It ends after so many bytes.
    Cut(usize),
    /// It is gone.
    Delete,
    /// It holds what another file of its folder holds.
    Mixed(String),
}

impl Damage {
    /// Damages of a file: some flips and cuts, its deletion, and a mix-up with its neighbours.
    ///
    /// # Errors
    /// The disk's.
    pub async fn of(disk: &Disk, path: &str, rng: &mut Rng, each: usize) -> Result<Vec<Self>> {
        let length = disk.read(path).await?.unwrap_or_default().len();
        let mut damages = vec![Self::Delete, Self::Cut(0)];
        for _ in 0..each {
            damages.push(Self::Flip(rng.below(length * 8)));
            damages.push(Self::Cut(rng.below(length)));
        }
        damages.push(Self::Cut(length.saturating_sub(1)));
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let files = disk.files(folder).await?;
        let at = files.iter().position(|file| file == path).unwrap_or(0);
        let neighbours = [at.checked_sub(1), Some(at + 1)].into_iter().flatten();
        let neighbours = neighbours.filter_map(|at| files.get(at).cloned());
        damages.extend(neighbours.map(Self::Mixed));
        Ok(damages)
    }

    /// Does it to the file.
    ///
    /// # Errors
    /// The disk's.
    pub async fn strike(&self, disk: &Disk, path: &str) -> Result<()> {
        let bytes = disk.read(path).await?.unwrap_or_default();
        let struck = match self {
            Self::Flip(bit) => {
                let mut bytes = bytes.to_vec();
                if let Some(byte) = bytes.get_mut(bit / 8) {
                    *byte ^= 1 << (bit % 8);
                }
                Some(Bytes::from(bytes))
            }
            Self::Cut(length) => Some(bytes.slice(..*length)),
            Self::Delete => None,
            Self::Mixed(other) => disk.read(other).await?,
        };
        disk.replace(path, struck).await
    }
}

/// What a restart made of a damaged checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survival {
    /// The output is what it would have been.
    Right,
    /// An error that names the file.
    Refused,
}

/// Damages one file of the checkpoint, restarts, goes through the last step, and brings back what was there.
///
/// # Errors
/// When the output is wrong, or an error does not name the file.
pub async fn survive(
    subject: &dyn Subject,
    setup: &Setup,
    disk: &Disk,
    (path, damage): (&str, &Damage),
    expected: &Output,
) -> Result<Survival> {
    let saved = disk.save().await?;
    damage.strike(disk, path).await?;
    let (lives, last) = (Lives::default(), subject.steps() - 1);
    let mut world = World::new(subject, setup, &lives, disk.beside());
    let told = |what: String| Error::internal(format!("{path}, {damage:?}: {what}"));
    let ran = world.go(last..last + 1).await;
    disk.restore(&saved).await?;
    match ran {
        Ok(ran) if ran.output == *expected => Ok(Survival::Right),
        Ok(ran) => Err(told(format!("{:?}, expected {expected:?}", ran.output))),
        Err(error) => {
            let text = format!("{error:?}");
            let kind = matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported);
            let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
            let folder = folder.rsplit('/').next().unwrap_or_default();
            let names = text.contains(path) || text.contains(&format!("`{folder}/{name}`"));
            match kind && names {
                true => Ok(Survival::Refused),
                false => Err(told(text)),
            }
        }
    }
}
