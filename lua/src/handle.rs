//! Handles: what an author holds of an object of the lab (lua-api L-005).
//!
//! All handles are one userdata type; the prelude gives it its methods by class. One object has
//! one handle for as long as somebody holds it, so handles compare equal and serve as keys.

use mlua::{AnyUserData, Lua, MetaMethod, Table, UserData, UserDataMethods};
use provium_lab::{
    Clock, ConsoleStream, File, Lab, LabSnapshot, Process, Snapshot, SyscallHandle, Tail, Vm,
    Worker,
};

/// Registry key of the table number -> handle; its values are weak.
const LIVE: &str = "provium.handles";

/// An object of the lab.
#[derive(Clone)]
pub(crate) enum Object {
    Lab(Lab),
    Vm(Vm),
    Worker(Worker),
    Process(Process),
    File(File),
    Tail(Tail),
    ConsoleStream(ConsoleStream),
    /// The console of a VM.
    Console(Vm),
    Clock(Clock),
    Syscall(SyscallHandle),
    Snapshot(Snapshot),
    LabSnapshot(LabSnapshot),
}

impl Object {
    /// The type as messages and `tostring` show it.
    pub(crate) fn class(&self) -> &'static str {
        match self {
            Self::Lab(_) => "Lab",
            Self::Vm(_) => "VM",
            Self::Worker(_) => "Worker",
            Self::Process(_) => "Process",
            Self::File(_) => "File",
            Self::Tail(_) => "Tail",
            Self::ConsoleStream(_) => "ConsoleStream",
            Self::Console(_) => "Console",
            Self::Clock(_) => "Clock",
            Self::Syscall(_) => "SyscallHandle",
            Self::Snapshot(_) => "Snapshot",
            Self::LabSnapshot(_) => "LabSnapshot",
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Lab(lab) => lab.name().to_owned(),
            Self::Vm(vm) | Self::Console(vm) => vm.name().to_owned(),
            Self::Worker(worker) => worker.handle().to_string(),
            Self::Process(process) => process.spawned_pid().to_string(),
            Self::File(file) => file.path().to_owned(),
            Self::Tail(tail) => tail.kind().name().to_owned(),
            Self::Snapshot(snapshot) => snapshot.path().display().to_string(),
            Self::LabSnapshot(snapshot) => snapshot.path().display().to_string(),
            Self::ConsoleStream(_) | Self::Clock(_) | Self::Syscall(_) => String::new(),
        }
    }

    /// The number of an object that can be looked up again, for which the one handle must be
    /// found. Everything else gets its one handle when it is made.
    fn known_number(&self) -> Option<u64> {
        match self {
            Self::Lab(lab) => Some(lab.id()),
            Self::Vm(vm) => Some(vm.id()),
            _ => None,
        }
    }
}

/// An object in Lua's hands.
pub(crate) struct Handle {
    object: Object,
    number: u64,
}

impl Handle {
    /// The object.
    pub(crate) fn object(&self) -> &Object {
        &self.object
    }

    /// Its type.
    pub(crate) fn class(&self) -> &'static str {
        self.object.class()
    }
}

impl UserData for Handle {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_meta_method(MetaMethod::ToString, |_, this, ()| {
            Ok(format!(
                "{}({}#{})",
                this.class(),
                this.object.name(),
                this.number
            ))
        });
    }
}

/// Prepares a state for handles.
pub(crate) fn install(lua: &Lua) -> mlua::Result<()> {
    let live = lua.create_table()?;
    let weak = lua.create_table()?;
    weak.raw_set("__mode", "v")?;
    live.set_metatable(Some(weak))?;
    lua.set_named_registry_value(LIVE, live)
}

/// The handle of `object`: the one that exists, or a new one, numbered by `new_number`.
pub(crate) fn handle(
    lua: &Lua,
    object: Object,
    new_number: impl FnOnce() -> u64,
) -> mlua::Result<AnyUserData> {
    let live: Table = lua.named_registry_value(LIVE)?;
    let known = object.known_number();
    if let Some(number) = known
        && let Some(data) = live.raw_get::<Option<AnyUserData>>(number)?
    {
        return Ok(data);
    }
    let number = known.unwrap_or_else(new_number);
    let data = lua.create_userdata(Handle { object, number })?;
    live.raw_set(number, &data)?;
    Ok(data)
}
