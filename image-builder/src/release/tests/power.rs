//! Cuts the power at any step of the writing, and forgets what was not made durable.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug, Default)]
struct State {
    /// Steps until the cut; `None`: it never comes.
    left: Option<u32>,
    /// Files with content that is not durable.
    unsynced: BTreeSet<PathBuf>,
    /// Names that are not durable, in order, with what was there before.
    volatile: Volatile,
}

thread_local! {
    static STATE: RefCell<State> = RefCell::default();
}

fn with<T>(act: impl FnOnce(&mut State) -> T) -> T {
    STATE.with(|state| act(&mut state.borrow_mut()))
}

/// Changes that were not durable when the power was cut.
pub type Volatile = Vec<(PathBuf, Option<Vec<u8>>)>;

/// Runs `act` and cuts the power after `steps` changes; `None` when it takes no more than those.
pub fn cut_after(steps: u32, act: impl FnOnce()) -> Option<Volatile> {
    with(|state| *state = State { left: Some(steps), ..State::default() });
    act();
    let state = with(std::mem::take);
    (state.left == Some(0)).then_some(state.volatile)
}

/// Takes back those changes that `lost` picks.
pub fn lose(cut: &Option<Volatile>, mut lost: impl FnMut() -> bool) {
    for (path, before) in cut.iter().flatten().rev() {
        if lost() {
            match before {
                Some(bytes) => fs::write(path, bytes).expect("restored"),
                None => fs::remove_file(path).unwrap_or_default(),
            }
        }
    }
}

pub fn step() -> io::Result<()> {
    with(|state| match &mut state.left {
        None => Ok(()),
        Some(0) => Err(io::Error::other("the power was cut")),
        Some(left) => {
            *left -= 1;
            Ok(())
        }
    })
}

pub fn wrote(path: &Path) {
    with(|state| state.unsynced.insert(path.to_owned()));
}

pub fn synced(path: &Path) {
    with(|state| {
        state.unsynced.remove(path);
        state.volatile.retain(|(name, _)| name.parent() != Some(path));
    });
}

pub fn naming(from: &Path, to: &Path) {
    let durable = with(|state| !state.unsynced.contains(from));
    assert!(durable, "{} gets its name before its content is durable", to.display());
    changing(to);
}

pub fn changing(path: &Path) {
    let before = fs::read(path).ok();
    with(|state| state.volatile.push((path.to_owned(), before)));
}
