//! Labs: named VMs and sub-labs, scopes, and calls on all members at once (lua-api sections 3 and 4).

mod barrier;
mod members;
mod names;
mod snapshot;

use std::pin::Pin;
use std::sync::{Arc, Mutex};

use provium_protocol::Amount;
use provium_protocol::event::{ClaimAcquired, ClaimReleased};

use crate::error::{Error, Reason, Result};
use crate::session::SessionCore;
use crate::state::{Need, VmState};
use crate::vm::{BootOptions, Vm};
use crate::wait::{Pending, join_all, lock};
use barrier::Barriers;
use members::Members;
pub use members::{Member, MemberKind};
pub use names::RESERVED;
use names::check_name;
pub use snapshot::LabSnapshot;

/// A lab. Clones are the same lab.
#[derive(Clone)]
pub struct Lab(Arc<LabCore>);

struct LabCore {
    id: u64,
    name: String,
    kind: Kind,
    session: Arc<SessionCore>,
    /// Where names are looked up further: a test's scope sees the file's root (L-021).
    parent: Option<Lab>,
    members: Mutex<Members>,
    barriers: Barriers,
    claim: Mutex<Option<Amount>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Root,
    Scope,
    Sub,
}

impl Lab {
    fn new(session: &Arc<SessionCore>, name: &str, kind: Kind, parent: Option<Lab>) -> Self {
        Self(Arc::new(LabCore {
            id: session.harness().new_id(),
            name: name.to_owned(),
            kind,
            session: session.clone(),
            parent,
            members: Mutex::default(),
            barriers: Barriers::default(),
            claim: Mutex::default(),
        }))
    }

    pub(crate) fn root(session: &Arc<SessionCore>) -> Self {
        Self::new(session, "provium", Kind::Root, None)
    }

    pub(crate) fn scope(root: &Lab) -> Self {
        Self::new(&root.0.session, "provium", Kind::Scope, Some(root.clone()))
    }

    /// Its name (L-046).
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// A number unique in the run (L-005).
    #[must_use]
    pub fn id(&self) -> u64 {
        self.0.id
    }

    fn resource(&self) -> String {
        format!("lab {}", self.0.name)
    }

    fn error(&self, call: &'static str, reason: impl Into<Reason>) -> Error {
        Error::new(call, self.resource(), reason)
    }

    /// Declares a VM: state `created`, options staged (L-030). Without a name it gets `__vm_N` (classic-api C-007).
    pub fn declare_vm(
        &self,
        name: Option<&str>,
        profile: &str,
        options: BootOptions,
    ) -> Result<Vm> {
        let call = "lab:vm";
        let session = &self.0.session;
        let refuse = |reason| self.error(call, reason);
        let profile = session
            .harness()
            .config()
            .profile(profile)
            .map_err(refuse)?
            .clone();
        options.check().map_err(refuse)?;
        if let Some(name) = name {
            check_name("VM", name).map_err(refuse)?;
            self.check_free(call, MemberKind::Vm, name)?;
        }
        let mut members = lock(&self.0.members);
        let name = match name {
            Some(name) => name.to_owned(),
            None => members.next_anonymous(MemberKind::Vm),
        };
        // Looked at again under the lock: another thread may have been faster.
        if members.find(MemberKind::Vm, &name).is_some() {
            return Err(refuse(self.duplicate(MemberKind::Vm, &name)));
        }
        let vm = Vm::declare(session, name, profile, options);
        members.add(Member::Vm(vm.clone()));
        Ok(vm)
    }

    /// The VM of that name here or in a parent scope (L-021).
    pub fn vm(&self, name: &str) -> Result<Vm> {
        self.find_vm(name).ok_or_else(|| {
            let kind = "vm";
            let known = self.chain().flat_map(|lab| lab.vm_names()).collect();
            self.error(
                "lab:vm",
                Reason::Unknown {
                    kind,
                    name: name.to_owned(),
                    known,
                },
            )
        })
    }

    /// As [`Lab::vm`], without an error (L-016).
    #[must_use]
    pub fn find_vm(&self, name: &str) -> Option<Vm> {
        self.chain().find_map(
            |lab| match lock(&lab.0.members).find(MemberKind::Vm, name) {
                Some(Member::Vm(vm)) => Some(vm.clone()),
                _ => None,
            },
        )
    }

    /// The sub-lab of that name here or in a parent scope (L-016).
    #[must_use]
    pub fn find_lab(&self, name: &str) -> Option<Lab> {
        self.chain()
            .find_map(|lab| lock(&lab.0.members).find_lab(name))
    }

    /// A sub-lab: the one of that name in this very lab, else a new one (L-025). It has no parent chain (L-026).
    pub fn lab(&self, name: Option<&str>) -> Result<Lab> {
        let call = "lab:lab";
        if let Some(name) = name {
            if let Some(found) = lock(&self.0.members).find_lab(name) {
                return Ok(found);
            }
            check_name("lab", name).map_err(|reason| self.error(call, reason))?;
            self.check_shadow(call, MemberKind::SubLab, name)?;
        }
        let mut members = lock(&self.0.members);
        let name = match name {
            Some(name) => name.to_owned(),
            None => members.next_anonymous(MemberKind::SubLab),
        };
        let lab = Lab::new(&self.0.session, &name, Kind::Sub, None);
        members.add(Member::Lab(lab.clone()));
        Ok(lab)
    }

    /// Adds existing members, all or nothing (L-032).
    pub fn include(&self, new: &[Member]) -> Result<()> {
        let call = "lab:include";
        for (index, member) in new.iter().enumerate() {
            let (kind, name) = (member.kind(), member.name());
            if RESERVED.contains(&name) {
                return Err(self.error(call, names::reserved(kind.word(), name)));
            }
            self.check_free(call, kind, name)?;
            let same = |other: &Member| other.kind() == kind && other.name() == name;
            if new[..index].iter().any(same) {
                return Err(self.error(call, self.duplicate(kind, name)));
            }
        }
        let mut members = lock(&self.0.members);
        for member in new {
            members.add(member.clone());
        }
        Ok(())
    }

    /// Takes a member out; the thing itself goes on (L-033).
    pub fn remove(&self, name: &str) -> Result<()> {
        let mut members = lock(&self.0.members);
        if members.remove(name) {
            return Ok(());
        }
        let known = members
            .iter()
            .map(|member| member.name().to_owned())
            .collect();
        let reason = Reason::Unknown {
            kind: "member",
            name: name.to_owned(),
            known,
        };
        Err(self.error("lab:remove", reason))
    }

    /// Direct members in declaration order (L-034).
    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        lock(&self.0.members).iter().cloned().collect()
    }

    /// Names of direct VMs in declaration order (L-035).
    #[must_use]
    pub fn vm_names(&self) -> Vec<String> {
        self.direct_vms()
            .iter()
            .map(|vm| vm.name().to_owned())
            .collect()
    }

    /// Names of direct sub-labs in declaration order (L-035).
    #[must_use]
    pub fn sub_lab_names(&self) -> Vec<String> {
        self.sub_labs()
            .iter()
            .map(|lab| lab.name().to_owned())
            .collect()
    }

    fn direct_vms(&self) -> Vec<Vm> {
        lock(&self.0.members)
            .iter()
            .filter_map(Member::vm)
            .cloned()
            .collect()
    }

    fn sub_labs(&self) -> Vec<Lab> {
        lock(&self.0.members)
            .iter()
            .filter_map(Member::lab)
            .cloned()
            .collect()
    }

    /// Direct VMs, and with `recursive` those of sub-labs (L-036).
    #[must_use]
    pub fn vms(&self, recursive: bool) -> Vec<Vm> {
        let mut vms = self.direct_vms();
        if recursive {
            vms.extend(self.sub_labs().iter().flat_map(|lab| lab.vms(true)));
        }
        vms
    }

    /// VMs that end with this lab: its own ones, not those of other scopes that it includes (L-029).
    pub(crate) fn owned_vms(&self) -> Vec<Vm> {
        let elsewhere = self
            .0
            .parent
            .as_ref()
            .map(|parent| parent.vms(true))
            .unwrap_or_default();
        self.vms(true)
            .into_iter()
            .filter(|vm| !elsewhere.contains(vm))
            .collect()
    }

    /// Boots all VMs that are `created` or `shutdown`, at once; others are left alone (L-036).
    pub fn boot(&self, recursive: bool) -> Result<()> {
        self.start_boot(recursive).wait()
    }

    /// Starts [`Lab::boot`].
    pub fn start_boot(&self, recursive: bool) -> Pending<()> {
        let down = |vm: &Vm| matches!(vm.state(), VmState::Created | VmState::Shutdown);
        let vms: Vec<Vm> = self.vms(recursive).into_iter().filter(down).collect();
        self.on_all("lab:boot", vms, |vm| vm.start_boot(BootOptions::default()))
    }

    /// Shuts all VMs down (L-037).
    pub fn shutdown(&self, recursive: bool) -> Result<()> {
        self.start_shutdown(recursive).wait()
    }

    /// Starts [`Lab::shutdown`].
    pub fn start_shutdown(&self, recursive: bool) -> Pending<()> {
        self.on_all("lab:shutdown", self.vms(recursive), Vm::start_shutdown)
    }

    /// Pauses all VMs; states are checked first, so that either all are paused or none (L-038).
    pub fn pause(&self, recursive: bool) -> Result<()> {
        self.check_all("lab:pause", recursive, Need::Booted)?
            .iter()
            .try_for_each(Vm::pause)
    }

    /// Resumes all VMs; as for [`Lab::pause`] (L-038).
    pub fn resume(&self, recursive: bool) -> Result<()> {
        self.check_all("lab:resume", recursive, Need::Paused)?
            .iter()
            .try_for_each(Vm::resume)
    }

    fn check_all(&self, call: &'static str, recursive: bool, need: Need) -> Result<Vec<Vm>> {
        let vms = self.vms(recursive);
        for vm in &vms {
            vm.state()
                .check(need)
                .map_err(|reason| Error::new(call, format!("vm {}", vm.name()), reason))?;
        }
        Ok(vms)
    }

    /// Runs an operation on several VMs at once; failures are told together (L-036).
    fn on_all(
        &self,
        call: &'static str,
        vms: Vec<Vm>,
        start: impl Fn(&Vm) -> Pending<()>,
    ) -> Pending<()> {
        let started: Vec<Pending<()>> = vms.iter().map(start).collect();
        let resource = self.resource();
        Pending::new(self.0.session.world(), call, self.resource(), async move {
            type Boxed = Pin<Box<dyn Future<Output = Result<()>> + Send>>;
            let waits = started
                .into_iter()
                .map(|pending| Box::pin(pending.ended()) as Boxed);
            let results = join_all(waits.collect()).await;
            let mut errors: Vec<Error> = results.into_iter().filter_map(Result::err).collect();
            match errors.len() {
                0 => Ok(()),
                1 => Err(errors.remove(0)),
                _ => Err(Error::new(call, resource, Reason::Several(errors))),
            }
        })
    }

    /// Claims a share of the run's resources, once per file (L-039).
    pub fn claim(&self, amount: Amount) -> Result<()> {
        self.start_claim(amount).wait()
    }

    /// Starts [`Lab::claim`]: what the pool does not have now is waited for.
    pub fn start_claim(&self, amount: Amount) -> Pending<()> {
        let call = "lab:claim";
        let world = self.0.session.world();
        let lab = self.clone();
        Pending::new(world, call, self.resource(), async move {
            let session = &lab.0.session;
            if !session.take_claim() {
                let text = "claim already taken".to_owned();
                return Err(lab.error(call, Reason::Refused(text)));
            }
            let claimed = session
                .share()
                .claim(session.world(), amount, session.tell_waiting());
            let first = claimed.await.map_err(|error| lab.error(call, error))?;
            *lock(&lab.0.claim) = Some(amount);
            if first {
                let path = session.file().to_owned();
                let events = session.harness().events();
                events.emit(ClaimAcquired { path, amount }.into());
            }
            Ok(())
        })
    }

    /// Waits until `count` callers are at this name of this lab (L-040).
    pub fn start_barrier(
        &self,
        name: &str,
        count: i64,
        timeout: std::time::Duration,
    ) -> Pending<()> {
        let world = self.0.session.world();
        let (lab, name) = (self.clone(), name.to_owned());
        Pending::new(
            world,
            "lab:barrier",
            format!("{}: barrier {name}", self.resource()),
            async move {
                let world = lab.0.session.world().clone();
                let arrived = lab.0.barriers.arrive(&world, &name, count, timeout).await;
                arrived.map_err(|reason| {
                    Error::new(
                        "lab:barrier",
                        format!("{}: barrier {name}", lab.resource()),
                        reason,
                    )
                })
            },
        )
    }

    /// This lab, then the scopes in which names are looked up further.
    fn chain(&self) -> impl Iterator<Item = &Lab> {
        std::iter::successors(Some(self), |lab| lab.0.parent.as_ref())
    }

    fn duplicate(&self, kind: MemberKind, name: &str) -> Reason {
        Reason::Duplicate {
            code: kind.duplicate_code(),
            kind: kind.word(),
            name: name.to_owned(),
            lab: self.0.name.clone(),
        }
    }

    fn check_free(&self, call: &'static str, kind: MemberKind, name: &str) -> Result<()> {
        if lock(&self.0.members).find(kind, name).is_some() {
            return Err(self.error(call, self.duplicate(kind, name)));
        }
        self.check_shadow(call, kind, name)
    }

    /// A test must not hide what the file declared (L-022).
    fn check_shadow(&self, call: &'static str, kind: MemberKind, name: &str) -> Result<()> {
        let Some(parent) = &self.0.parent else {
            return Ok(());
        };
        if lock(&parent.0.members).find(kind, name).is_none() {
            return Ok(());
        }
        let reason = Reason::Shadow {
            kind: kind.word(),
            name: name.to_owned(),
            lab: parent.0.name.clone(),
            lookup: format!("provium:{}({name:?})", kind.lookup_call()),
        };
        Err(self.error(call, reason))
    }

    /// Stops everything it owns, VMs in parallel; never fails (L-228).
    pub(crate) fn close(&self) {
        let vms = self.owned_vms();
        std::thread::scope(|scope| {
            // Stopping joins a machine's threads, so several at once save their sum.
            for vm in vms.iter().skip(1) {
                scope.spawn(|| vm.close());
            }
            if let Some(vm) = vms.first() {
                vm.close();
            }
        });
        *lock(&self.0.members) = Members::default();
        if let Some(amount) = lock(&self.0.claim).take()
            && self.0.session.owns_share()
        {
            let path = self.0.session.file().to_owned();
            self.0
                .session
                .harness()
                .events()
                .emit(ClaimReleased { path, amount }.into());
        }
    }

    /// Whether it is the root of its file.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.kind == Kind::Root
    }
}

impl PartialEq for Lab {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Lab {}
