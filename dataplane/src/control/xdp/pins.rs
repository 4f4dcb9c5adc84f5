//! The files in bpffs that keep links alive when this process is gone.

use super::{Mode, XdpError};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// The files in bpffs that keep links alive.
pub(super) struct Pins {
    pub(super) bpffs: PathBuf,
    pub(super) folder: PathBuf,
    /// What is pinned stays when this process is gone.
    pub(super) outlive: bool,
}

impl Pins {
    pub(super) fn new(bpffs: &Path, instance: &str) -> Self {
        // An interface index means something within its network namespace only.
        let namespace = fs::read_link("/proc/thread-self/ns/net").unwrap_or_default();
        let number: String = namespace.to_string_lossy().chars().filter(char::is_ascii_digit).collect();
        let folder = bpffs.join("penstock").join(instance).join(number);
        Self { bpffs: bpffs.into(), folder, outlive: true }
    }

    /// No dots in the name: bpffs refuses them.
    pub(super) fn file(&self, device: u32, mode: Mode) -> PathBuf {
        let mode = if mode == Mode::Native { "native" } else { "generic" };
        self.folder.join(format!("{mode}_{device}"))
    }

    /// Sees to it that there is a BPF file system.
    pub(super) fn prepare(&mut self) -> Result<(), XdpError> {
        if !is_bpffs(&self.bpffs) {
            rustix::mount::mount("bpf", &self.bpffs, "bpf", rustix::mount::MountFlags::empty(), None)
                .map_err(|e| XdpError::Bpffs { path: self.bpffs.clone(), source: e.into() })?;
            // A mount of our own, in a namespace that our parent does not share, ends with us. Asked now, since to look
            // at a process that may more than we do is not allowed.
            let namespace = |process: &str| fs::read_link(format!("/proc/{process}/ns/mnt")).ok();
            let parent = rustix::process::getppid().and_then(|parent| namespace(&parent.as_raw_nonzero().to_string()));
            self.outlive = parent.is_some() && parent == namespace("thread-self");
        }
        Ok(())
    }

    pub(super) fn make_folder(&self) -> Result<(), XdpError> {
        fs::create_dir_all(&self.folder).map_err(|source| XdpError::Pin { path: self.folder.clone(), source })
    }

    /// The devices whose links an earlier process of this instance left.
    pub(super) fn left(&self) -> Result<BTreeSet<u32>, XdpError> {
        let error = |source| XdpError::Pin { path: self.folder.clone(), source };
        let entries = match fs::read_dir(&self.folder) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
            other => other.map_err(error)?,
        };
        let mut left = BTreeSet::new();
        for entry in entries {
            let name = entry.map_err(error)?.file_name();
            left.extend(name.to_string_lossy().split_once('_').and_then(|(_, device)| device.parse::<u32>().ok()));
        }
        Ok(left)
    }

    /// Removes what keeps a device's link alive; whether anything did.
    pub(super) fn remove(&self, device: u32) -> Result<bool, XdpError> {
        let mut any = false;
        for mode in [Mode::Native, Mode::Generic] {
            let path = self.file(device, mode);
            match fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(XdpError::Pin { path, source }),
                removed => any |= removed.is_ok(),
            }
        }
        Ok(any)
    }

    /// Removes the folders, as far as nobody else has something in them.
    pub(super) fn clean(&self) {
        for folder in self.folder.ancestors().take(3) {
            if fs::remove_dir(folder).is_err() {
                break;
            }
        }
    }
}

pub(super) fn is_bpffs(path: &Path) -> bool {
    const BPF_FS_MAGIC: i64 = 0xcafe_4a11;
    rustix::fs::statfs(path).is_ok_and(|fs| fs.f_type == BPF_FS_MAGIC)
}
