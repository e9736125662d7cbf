//! Snapshots of whole labs: all members as of one instant (lua-api L-041, L-042, L-205).
//!
//! A directory: `lab.json` says what there is, `NAME.snap` holds a VM that was up, a sub-lab has a directory of its
//! name. `lab.json` is written last, so a directory with one is complete.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use provium_vmm::MachineState;
use provium_vmm::snapshot::{Extent, SaveTo};
use serde::{Deserialize, Serialize};

use super::{Lab, Member, MemberKind, Need};
use crate::error::{Error, Reason, Result};
use crate::state::VmState;
use crate::vm::{BootOptions, RestoreFrom, Snapshot, Standing, Vm, refuse_offenders, rewind};
use crate::wait::{Pending, join_all, lock};

/// Version of `lab.json`.
const FORMAT: u32 = 1;
const FILE: &str = "lab.json";

/// A lab at one instant. Clones are the same snapshot.
#[derive(Clone)]
pub struct LabSnapshot {
    dir: PathBuf,
}

/// The content of `lab.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Document {
    format: u32,
    harness: String,
    members: Vec<Record>,
    /// None exist yet; the place where they will be.
    bridges: Vec<serde_json::Value>,
}

/// A member in it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Record {
    Vm {
        name: String,
        profile: String,
        state: String,
        /// Relative to the directory of `lab.json`.
        file: Option<PathBuf>,
    },
    SubLab {
        name: String,
        members: Vec<Record>,
    },
}

impl LabSnapshot {
    /// A directory that holds one.
    #[must_use]
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Bytes on disk of the files directly in it; 0 if it is gone (L-203).
    #[must_use]
    pub fn size(&self) -> u64 {
        use std::os::unix::fs::MetadataExt;
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| entry.metadata().ok())
            .filter(fs::Metadata::is_file)
            .map(|meta| meta.blocks() * 512)
            .sum()
    }

    /// Removes it; again is nothing.
    pub fn delete(&self) {
        // It may be gone already.
        let _gone = fs::remove_dir_all(&self.dir);
    }

    /// Whether all of it is there and undamaged; checks what no restore has checked yet.
    ///
    /// # Errors
    /// Naming the file that is missing, damaged, or of another version.
    pub fn check(&self, session: &crate::Session) -> Result<()> {
        let fail = |reason| Error::new("lab_fixture", self.dir.display().to_string(), reason);
        let document = self.read().map_err(fail)?;
        let mut files = Vec::new();
        files_of(&document.members, &self.dir, &mut files);
        files.iter().try_for_each(|file| {
            let opened = session.core().open_snapshot(file);
            opened.map(drop).map_err(fail)
        })
    }

    fn read(&self) -> Result<Document, Reason> {
        let path = self.dir.join(FILE);
        let text = fs::read(&path).map_err(|source| Reason::Host {
            action: "read",
            path: path.clone(),
            source,
        })?;
        let refuse = |why: String| Reason::Refused(format!("{}: {why}", path.display()));
        let document: Document = serde_json::from_slice(&text)
            .map_err(|error| refuse(format!("not the description of a lab: {error}")))?;
        if document.format != FORMAT {
            let found = document.format;
            return Err(refuse(format!(
                "format version {found}, this Provium reads version {FORMAT}; take it anew"
            )));
        }
        document
            .members
            .iter()
            .try_for_each(check_record)
            .map_err(refuse)?;
        Ok(document)
    }
}

fn files_of(records: &[Record], dir: &Path, files: &mut Vec<PathBuf>) {
    for record in records {
        match record {
            Record::Vm { file, .. } => files.extend(file.as_ref().map(|file| dir.join(file))),
            Record::SubLab { name, members } => files_of(members, &dir.join(name), files),
        }
    }
}

/// A name of a member becomes a file name; one from a file of unknown origin must not lead elsewhere.
fn check_record(record: &Record) -> Result<(), String> {
    let plain = |name: &str| {
        let file = Path::new(name).components().count() == 1
            && matches!(
                Path::new(name).components().next(),
                Some(std::path::Component::Normal(_))
            );
        file.then_some(())
            .ok_or_else(|| format!("{name:?} is no name of a member"))
    };
    match record {
        Record::Vm { name, file, .. } => {
            plain(name)?;
            let inside = file.as_ref().is_none_or(|file| {
                file.components()
                    .all(|part| matches!(part, std::path::Component::Normal(_)))
            });
            inside
                .then_some(())
                .ok_or_else(|| format!("member {name:?}: its file lies outside of the directory"))
        }
        Record::SubLab { name, members } => {
            plain(name)?;
            members.iter().try_for_each(check_record)
        }
    }
}

/// What is restored of one member.
enum Step {
    Run(Standing),
    Pause(Standing, Vm),
}

impl Lab {
    /// Saves all members as of one instant, into `dir` (absent or empty) or a directory that vanishes with the test
    /// file (L-041).
    pub fn snapshot(&self, dir: Option<&Path>) -> Result<LabSnapshot> {
        self.start_snapshot(dir).wait()
    }

    /// Starts [`Lab::snapshot`].
    pub fn start_snapshot(&self, dir: Option<&Path>) -> Pending<LabSnapshot> {
        let call = "lab:snapshot";
        let (lab, dir) = (self.clone(), dir.map(Path::to_owned));
        Pending::new(self.0.session.world(), call, self.resource(), async move {
            lab.save(call, dir).await
        })
    }

    async fn save(&self, call: &'static str, dir: Option<PathBuf>) -> Result<LabSnapshot> {
        let session = &self.0.session;
        let durable = dir.is_some();
        let dir = match dir {
            Some(dir) => dir,
            None => session
                .temp_path(self.name(), "lab")
                .map_err(|reason| self.error(call, reason))?,
        };
        let vms = self.vms(true);
        let up: Vec<&Vm> = vms.iter().filter(|vm| is_up(vm)).collect();
        for vm in vms.iter().filter(|vm| vm.state() == VmState::Dead) {
            vm.core().check(call, Need::Up)?;
        }
        let cores: Vec<_> = up.iter().map(|vm| vm.core()).collect();
        refuse_offenders(call, session, &cores)?;
        self.make_dir(call, &dir)?;
        for core in &cores {
            core.quiesce(call).await?;
        }
        let saved = self.save_still(call, &dir, durable, &up);
        for core in &cores {
            core.unquiesce(call).await?;
        }
        if saved.is_err() {
            // The error of saving is the one to tell.
            let _gone = fs::remove_dir_all(&dir);
        }
        saved?;
        Ok(LabSnapshot { dir })
    }

    fn make_dir(&self, call: &'static str, dir: &Path) -> Result<()> {
        let host = |source| {
            self.error(
                call,
                Reason::Host {
                    action: "make",
                    path: dir.to_owned(),
                    source,
                },
            )
        };
        if let Ok(mut entries) = fs::read_dir(dir)
            && entries.next().is_some()
        {
            let text = format!("{}: the directory is not empty", dir.display());
            return Err(self.error(call, Reason::Refused(text)));
        }
        fs::create_dir_all(dir).map_err(host)
    }

    /// Stops all machines, saves them, and lets them go on.
    fn save_still(&self, call: &'static str, dir: &Path, durable: bool, up: &[&Vm]) -> Result<()> {
        let states: Vec<(Vm, VmState)> = up.iter().map(|vm| ((*vm).clone(), vm.state())).collect();
        let machines: Vec<_> = up.iter().filter_map(|vm| vm.machine()).collect();
        let running: Vec<_> = machines
            .iter()
            .filter(|machine| machine.state() == MachineState::Running)
            .collect();
        let refused = |error| self.error(call, Reason::Machine(error));
        let saved = running
            .iter()
            .try_for_each(|machine| machine.pause().map_err(refused))
            .and_then(|()| self.save_members(call, dir, durable, &states))
            .and_then(|members| self.write_document(call, dir, members));
        for machine in running {
            // One that has stopped meanwhile has told so.
            let _stopped = machine.resume();
        }
        self.0.session.world().notify();
        saved
    }

    fn save_members(
        &self,
        call: &'static str,
        dir: &Path,
        durable: bool,
        states: &[(Vm, VmState)],
    ) -> Result<Vec<Record>> {
        let mut records = Vec::new();
        for member in self.members() {
            records.push(match member {
                Member::Vm(vm) => {
                    let up = states.iter().find(|(other, _)| *other == vm);
                    let state = up.map_or_else(|| vm.state(), |(_, state)| *state);
                    let file = format!("{}.snap", vm.name());
                    if up.is_some() {
                        let path = dir.join(&file);
                        let (to, extent) = match durable {
                            true => (SaveTo::Durable(&path), Extent::Whole),
                            false => (SaveTo::Scratch(&path), self.0.session.temp_extent()),
                        };
                        vm.core().save_as(call, to, extent, state)?;
                    }
                    Record::Vm {
                        name: vm.name().to_owned(),
                        profile: vm.profile().to_owned(),
                        state: state.name().to_owned(),
                        file: up.map(|_| file.into()),
                    }
                }
                Member::Lab(lab) => {
                    let below = dir.join(lab.name());
                    self.make_dir(call, &below)?;
                    Record::SubLab {
                        name: lab.name().to_owned(),
                        members: lab.save_members(call, &below, durable, states)?,
                    }
                }
            });
        }
        Ok(records)
    }

    fn write_document(&self, call: &'static str, dir: &Path, members: Vec<Record>) -> Result<()> {
        let document = Document {
            format: FORMAT,
            harness: env!("CARGO_PKG_VERSION").to_owned(),
            members,
            bridges: Vec::new(),
        };
        let path = dir.join(FILE);
        let written = serde_json::to_vec_pretty(&document)
            .map_err(std::io::Error::from)
            .and_then(|text| {
                let mut file = tempfile::NamedTempFile::new_in(dir)?;
                file.write_all(&text)?;
                file.as_file().sync_all()?;
                file.persist(&path)?;
                Ok(())
            });
        written.map_err(|source| {
            let action = "write";
            self.error(
                call,
                Reason::Host {
                    action,
                    path,
                    source,
                },
            )
        })
    }

    /// Puts all recorded members back, in whatever state they are, and each into the state recorded for it; others
    /// are left alone (L-042).
    pub fn restore(&self, snapshot: &LabSnapshot) -> Result<()> {
        self.start_restore(snapshot).wait()
    }

    /// Starts [`Lab::restore`].
    pub fn start_restore(&self, snapshot: &LabSnapshot) -> Pending<()> {
        let call = "lab:restore";
        let (lab, snapshot) = (self.clone(), snapshot.clone());
        Pending::new(self.0.session.world(), call, self.resource(), async move {
            let document = snapshot.read().map_err(|reason| lab.error(call, reason))?;
            lab.put_all_back(call, &snapshot.dir, &document.members)
                .await
        })
    }

    async fn put_all_back(&self, call: &'static str, dir: &Path, records: &[Record]) -> Result<()> {
        let mut work = Vec::new();
        self.find_members(call, dir, records, &mut work)?;
        // All stand still before the first one changes.
        for (vm, ..) in &work {
            if let Some(machine) = vm.machine() {
                // One that has stopped is put back all the same.
                let _stopped = machine.pause();
            }
        }
        let mut steps = Vec::new();
        for (vm, state, snapshot) in work {
            let core = vm.core();
            match (snapshot, state.as_str()) {
                (Some(snapshot), "paused") => {
                    steps.push(Step::Pause(rewind(core, call, &snapshot)?, vm));
                }
                (Some(snapshot), _) => steps.push(Step::Run(rewind(core, call, &snapshot)?)),
                (None, "created") => core.forget(),
                (None, _) => core.put_down(),
            }
        }
        type Boxed = std::pin::Pin<Box<dyn Future<Output = Result<()>> + Send>>;
        let wakes = steps.into_iter().map(|step| {
            Box::pin(async move {
                match step {
                    Step::Run(standing) => standing.wake().await,
                    Step::Pause(standing, vm) => {
                        standing.wake().await?;
                        vm.pause()
                    }
                }
            }) as Boxed
        });
        let results = join_all(wakes.collect()).await;
        let mut errors: Vec<Error> = results.into_iter().filter_map(Result::err).collect();
        match errors.len() {
            0 => Ok(()),
            1 => Err(errors.remove(0)),
            _ => Err(self.error(call, Reason::Several(errors))),
        }
    }

    /// The members that `records` name, made where they are missing, with what is to become of them.
    fn find_members(
        &self,
        call: &'static str,
        dir: &Path,
        records: &[Record],
        work: &mut Vec<(Vm, String, Option<Snapshot>)>,
    ) -> Result<()> {
        for record in records {
            match record {
                Record::Vm {
                    name,
                    profile,
                    state,
                    file,
                } => {
                    let snapshot = file
                        .as_ref()
                        .map(|file| self.0.session.open_snapshot(&dir.join(file)))
                        .transpose()
                        .map_err(|reason| self.error(call, reason))?;
                    let vm = self.find_or_declare(call, name, profile)?;
                    work.push((vm, state.clone(), snapshot));
                }
                Record::SubLab { name, members } => {
                    let found = lock(&self.0.members).find_lab(name);
                    let lab = found.unwrap_or_else(|| {
                        let lab = Lab::new(&self.0.session, name, super::Kind::Sub, None);
                        lock(&self.0.members).add(Member::Lab(lab.clone()));
                        lab
                    });
                    lab.find_members(call, &dir.join(name), members, work)?;
                }
            }
        }
        Ok(())
    }

    fn find_or_declare(&self, call: &'static str, name: &str, profile: &str) -> Result<Vm> {
        let found = lock(&self.0.members).find(MemberKind::Vm, name).cloned();
        if let Some(Member::Vm(vm)) = found {
            return Ok(vm);
        }
        let session = &self.0.session;
        let profile = session.harness().config().profile(profile);
        let profile = profile.map_err(|reason| self.error(call, reason))?.clone();
        // Names of a snapshot may be generated ones, which a test could not give.
        let vm = Vm::declare(session, name.to_owned(), profile, BootOptions::default());
        lock(&self.0.members).add(Member::Vm(vm.clone()));
        Ok(vm)
    }

    /// Goes on from a snapshot of a single VM, in a new VM of this lab: under the name that it had, or `NAME~2`, ...
    /// if that is taken (L-028).
    ///
    /// # Errors
    /// When the snapshot cannot be used; what went wrong later is the result's error.
    pub fn start_adopt(&self, from: RestoreFrom) -> Result<Pending<Vm>> {
        let call = "vm_fixture";
        let fail = |reason| self.error(call, reason);
        let snapshot = match from {
            RestoreFrom::Snapshot(snapshot) => snapshot,
            RestoreFrom::Path(path) => self.0.session.open_snapshot(&path).map_err(fail)?,
        };
        let (record, _) = snapshot.record().map_err(fail)?;
        let wanted = &record.name;
        let profile = self.0.session.harness().config().profile(&record.profile);
        let profile = profile.map_err(|reason| self.error(call, reason))?.clone();
        let vm = {
            let mut members = lock(&self.0.members);
            let taken = |name: &str| members.find(MemberKind::Vm, name).is_some();
            let name = (2..)
                .map(|n| format!("{wanted}~{n}"))
                .find(|name| !taken(name))
                .filter(|_| taken(wanted))
                .unwrap_or_else(|| wanted.clone());
            let vm = Vm::declare(&self.0.session, name, profile, BootOptions::default());
            members.add(Member::Vm(vm.clone()));
            vm
        };
        let restored = vm.start_restore(RestoreFrom::Snapshot(snapshot));
        let world = self.0.session.world();
        Ok(Pending::new(world, call, format!("vm {}", vm.name()), {
            async move {
                restored.ended().await?;
                Ok(vm)
            }
        }))
    }

    /// Forks all members, running, into a new sub-lab.
    pub fn start_fork(&self, name: Option<&str>) -> Result<Pending<Lab>> {
        let fork = self.lab(name)?;
        let lab = self.clone();
        let copy = fork.clone();
        let world = self.0.session.world().clone();
        Ok(Pending::new(
            &world,
            "lab:clone",
            self.resource(),
            async move {
                for vm in lab.direct_vms() {
                    if is_up(&vm) {
                        vm.start_fork(&copy, Some(vm.name())).ended().await?;
                    }
                }
                Ok(copy)
            },
        ))
    }
}

fn is_up(vm: &Vm) -> bool {
    matches!(vm.state(), VmState::Booted | VmState::Paused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l205_names_from_a_file_do_not_lead_elsewhere() {
        let vm = |name: &str, file: &str| Record::Vm {
            name: name.to_owned(),
            profile: "minimal".to_owned(),
            state: "booted".to_owned(),
            file: Some(file.into()),
        };
        assert!(check_record(&vm("a", "a.snap")).is_ok());
        assert!(check_record(&vm("__vm_0", "__vm_0.snap")).is_ok());
        assert!(check_record(&vm("../a", "a.snap")).is_err());
        assert!(check_record(&vm("a", "/etc/passwd")).is_err());
        assert!(check_record(&vm("a", "../a.snap")).is_err());
        let below = Record::SubLab {
            name: "l".to_owned(),
            members: vec![vm("..", "x")],
        };
        assert!(check_record(&below).is_err());
    }

    #[test]
    fn l042_a_bad_description_names_its_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let read = || LabSnapshot::at(dir.path()).read().unwrap_err().to_string();
        assert!(read().contains("lab.json"));
        for text in ["", "{", r#"{"format":1}"#] {
            fs::write(&path, text).unwrap();
            let told = read();
            assert!(told.contains(path.to_str().unwrap()), "{told}");
        }
        let newer = r#"{"format":9,"harness":"x","members":[],"bridges":[]}"#;
        fs::write(&path, newer).unwrap();
        assert!(read().contains("format version 9"), "{}", read());
    }
}
