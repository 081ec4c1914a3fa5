//! QEMU must not outlive this process, even when it is killed and runs no destructor.

use std::process::{Child, Command, Stdio};

/// A shell that kills a process once the pipe to it closes, which the kernel does when we die.
#[derive(Debug)]
pub struct Watcher(Option<Child>);

impl Watcher {
    /// Watches over `pid`. A machine without `sh` goes unwatched.
    pub fn over(pid: u32) -> Watcher {
        use std::os::unix::process::CommandExt;
        let child = Command::new("sh")
            .args(["-c", "read -r line || kill -9 \"$0\"", &pid.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C at the terminal must reach us alone.
            .process_group(0)
            .spawn();
        Watcher(child.ok())
    }
}

impl Drop for Watcher {
    /// To be dropped as soon as the watched process is reaped: its number may then go to another.
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            crate::process::kill(child);
        }
    }
}
