//! Which process listens on a port, for the one message that needs it. Linux only: elsewhere the
//! answer is "unknown".

use std::fs;

/// A process that listens on a port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct PortHolder {
    pub(crate) pid: u32,
    pub(crate) name: String,
}

/// Looks for the listener in `/proc`; `None` if it is not ours to see.
pub(crate) fn find(port: u16) -> Option<PortHolder> {
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"].iter().find_map(|table| {
        let table = fs::read_to_string(table).ok()?;
        table.lines().skip(1).find_map(|line| listening_inode(line, port).map(str::to_owned))
    })?;
    let target = format!("socket:[{inode}]");
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let Ok(descriptors) = fs::read_dir(entry.path().join("fd")) else { continue };
        let holds = descriptors.flatten().any(|descriptor| {
            fs::read_link(descriptor.path()).is_ok_and(|link| link.to_string_lossy() == target)
        });
        if holds {
            let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            return Some(PortHolder { pid, name: name.trim().to_owned() });
        }
    }
    None
}

/// Inode of the socket in a line of `/proc/net/tcp` if it listens (state 0A) on `port`.
fn listening_inode(line: &str, port: u16) -> Option<&str> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let local_port = fields.get(1)?.rsplit(':').next()?;
    let is_listening = *fields.get(3)? == "0A";
    let is_port = u16::from_str_radix(local_port, 16).ok()? == port;
    (is_listening && is_port).then(|| fields.get(9).copied()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_listener_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let holder = find(listener.local_addr().unwrap().port()).unwrap();
        assert_eq!(holder.pid, std::process::id());
    }
}
