//! Every operation of the agent, its arguments and its answer (E-058 to E-089, E-102).

use super::operations;
use super::types::*;

operations! {
    /// Is anybody there (E-058)?
    Ping = "ping" {} -> Uptime;

    /// Runs a command to its end (E-059).
    Exec = "exec" {
        /// The command.
        spec: ExecSpec,
        /// Time after which its process group is killed.
        timeout_ms: Option<u64>,
    } -> ExecResult;

    /// Reads on in an output that did not fit its frame (E-060). Empty at the end.
    OutputRead = "output_read" {
        /// The `more` of the result, or a process.
        h: u64,
        /// Which part.
        which: Which,
        /// Where to read.
        offset: u64,
        /// Most bytes wanted; the answer may be shorter.
        max: u64,
    } -> Vec<u8>;

    /// Drops an output (E-060); of a process it drops nothing.
    OutputRelease = "output_release" {
        /// The `more` of the result.
        h: u64,
    } -> ();

    /// Starts a command that runs on its own (E-061).
    Spawn = "spawn" {
        /// The command.
        spec: ExecSpec,
    } -> Spawned;

    /// Waits for a process (E-062).
    ProcWait = "proc_wait" {
        /// The process.
        h: u64,
        /// How long; absent is for ever.
        timeout_ms: Option<u64>,
        /// Whether its group is killed when the time is up.
        kill: bool,
    } -> ExecResult;

    /// Signals a process (E-063). False if it has ended.
    ProcSignal = "proc_signal" {
        /// The process.
        h: u64,
        /// Signal number.
        signal: i32,
        /// Whether the whole process group gets it.
        group: Option<bool>,
    } -> bool;

    /// State of a process, without waiting (E-064).
    ProcStatusGet = "proc_status" {
        /// The process.
        h: u64,
    } -> ProcState;

    /// Process id of a process (E-064).
    ProcPid = "proc_pid" {
        /// The process.
        h: u64,
    } -> i32;

    /// Writes all of `data` to the standard input of a process (E-065).
    ProcStdin = "proc_stdin" {
        /// The process.
        h: u64,
        /// The bytes.
        data: Vec<u8>,
    } -> u64;

    /// Closes the standard input of a process (E-065).
    ProcCloseStdin = "proc_close_stdin" {
        /// The process.
        h: u64,
    } -> ();

    /// Forgets a process without killing it (E-066).
    ProcRelease = "proc_release" {
        /// The process.
        h: u64,
    } -> ();

    /// Reads a file from its beginning (E-067).
    ReadFile = "read_file" {
        /// The file.
        path: Vec<u8>,
        /// Most bytes in the answer.
        max: u64,
    } -> FileData;

    /// Creates or replaces a file's contents (E-068).
    WriteFile = "write_file" {
        /// The file.
        path: Vec<u8>,
        /// Its contents.
        data: Blob,
        /// Its exact permissions; absent is 0644 for a new file.
        perm: Option<u32>,
    } -> ();

    /// What is at a path (E-069).
    Stat = "stat" {
        /// The path.
        path: Vec<u8>,
        /// Whether a symbolic link at its end is followed.
        follow: bool,
    } -> FileStat;

    /// Entries of a directory without `.` and `..`, sorted by name (E-070).
    ListDir = "listdir" {
        /// The directory.
        path: Vec<u8>,
    } -> Vec<DirEntry>;

    /// Creates a directory (E-071).
    Mkdir = "mkdir" {
        /// The directory.
        path: Vec<u8>,
        /// Whether missing parents are created and an existing directory is fine.
        parents: bool,
        /// Exact permissions of the last component.
        perm: Option<u32>,
    } -> ();

    /// Removes a file, link or empty directory (E-071).
    Unlink = "unlink" {
        /// What to remove.
        path: Vec<u8>,
    } -> ();

    /// Renames atomically (E-071).
    Rename = "rename" {
        /// The old path.
        from: Vec<u8>,
        /// The new path.
        to: Vec<u8>,
    } -> ();

    /// Opens a file (E-072).
    Open = "open" {
        /// The file.
        path: Vec<u8>,
        /// Bits of [`open_mode`](super::open_mode).
        mode: u32,
        /// Exact permissions of a new file; absent is 0644.
        perm: Option<u32>,
    } -> Opened;

    /// Reads at the cursor (E-073). Empty at the end.
    Read = "read" {
        /// The file.
        h: u64,
        /// Most bytes wanted.
        max: u64,
    } -> Vec<u8>;

    /// Writes at the cursor (E-073); may be short.
    Write = "write" {
        /// The file.
        h: u64,
        /// The bytes.
        data: Vec<u8>,
    } -> u64;

    /// Moves the cursor (E-074); gives the new offset.
    Seek = "seek" {
        /// The file.
        h: u64,
        /// How far.
        offset: i64,
        /// From where.
        whence: Whence,
    } -> u64;

    /// Closes a file (E-074).
    Close = "close" {
        /// The file.
        h: u64,
    } -> ();

    /// Follows a file (E-075).
    TailOpen = "tail_open" {
        /// The file.
        path: Vec<u8>,
        /// Where to begin.
        start: TailStart,
    } -> u64;

    /// Streams what a descriptor or open file yields (E-076).
    FdStreamOpen = "fd_stream_open" {
        /// A descriptor of the agent process.
        fd: Option<i32>,
        /// Or an open file.
        h: Option<u64>,
        /// Where to begin in a regular file; absent is its cursor.
        offset: Option<u64>,
    } -> u64;

    /// Streams the output of a process from its first byte (E-077).
    ProcStreamOpen = "proc_stream_open" {
        /// The process.
        h: u64,
        /// Which output.
        which: Which,
    } -> u64;

    /// Ends a stream (E-078).
    StreamClose = "stream_close" {
        /// The stream.
        s: u64,
    } -> ();

    /// Makes a system call on the op thread (E-079).
    Syscall = "syscall" {
        /// Its number.
        nr: u32,
        /// Its arguments.
        args: Vec<i64>,
        /// Buffers, copied in and out.
        bufs: Vec<Blob>,
        /// Arguments that are addresses of buffers.
        slots: Vec<Slot>,
        /// Addresses of buffers inside buffers.
        nested: Vec<Nested>,
    } -> SyscallResult;

    /// Makes a system call on a thread of its own, with the credentials of the op thread at this
    /// moment (L-235). Cancelling it interrupts the call and answers with what the kernel said.
    SyscallAsync = "syscall_async" {
        /// The call.
        call: Syscall,
    } -> SyscallResult;

    /// Makes an ioctl on the op thread (E-080).
    Ioctl = "ioctl" {
        /// The descriptor.
        fd: i32,
        /// The command.
        cmd: u32,
        /// Its argument.
        data: Option<IoctlData>,
        /// Further buffers, copied in and out.
        bufs: Vec<Blob>,
        /// Where in `data` the address of each buffer is stored.
        offsets: Vec<u64>,
    } -> IoctlResult;

    /// Reads memory of the agent process (L-237).
    MemRead = "mem_read" {
        /// The address.
        addr: u64,
        /// How many bytes.
        len: u64,
    } -> Vec<u8>;

    /// Writes memory of the agent process (L-237).
    MemWrite = "mem_write" {
        /// The address.
        addr: u64,
        /// The bytes.
        data: Vec<u8>,
    } -> ();

    /// The realtime clock (E-081).
    ClockGet = "clock_get" {} -> i64;

    /// Sets the realtime clock (E-081).
    ClockSet = "clock_set" {
        /// Nanoseconds since the epoch.
        ns: i64,
    } -> ();

    /// Moves the realtime clock (E-081).
    ClockAdvance = "clock_advance" {
        /// By how much.
        delta_ns: i64,
    } -> ();

    /// Answers when monotonic time has advanced (E-081).
    ClockSleep = "clock_sleep" {
        /// By how much.
        ns: u64,
    } -> ();

    /// Mounts the pseudo file systems (E-082).
    MountVfs = "mount_vfs" {} -> ();

    /// The kernel log (E-082).
    Dmesg = "dmesg" {} -> Vec<u8>;

    /// Sets up network interfaces and the hosts file (E-083); doing it again changes nothing.
    NetConfigure = "net_configure" {
        /// The interfaces.
        nics: Vec<NicConfig>,
        /// Names of other machines.
        hosts: Vec<HostEntry>,
    } -> Vec<NicName>;

    /// Waits for the block device with a serial and gives its path (E-084).
    BlockFind = "block_find" {
        /// The serial.
        serial: String,
    } -> Vec<u8>;

    /// Starts a worker (E-085).
    SpawnWorker = "spawn_worker" {
        /// Whether it is a thread instead of a process.
        thread: bool,
    } -> WorkerSpawned;

    /// Signals every process that runs under the worker; gives how many there were (E-086).
    WorkerSignal = "worker_signal" {
        /// Signal number.
        signal: i32,
    } -> u64;

    /// Waits for every process ever started under the worker (E-086).
    WorkerJoin = "worker_join" {} -> Vec<JoinedProc>;

    /// Ends the worker (E-086).
    WorkerExit = "worker_exit" {} -> ();

    /// Makes ready for a snapshot (E-087).
    Quiesce = "quiesce" {} -> ();

    /// Goes on after a snapshot (E-087).
    Unquiesce = "unquiesce" {} -> ();

    /// Powers the guest off (E-088).
    Shutdown = "shutdown" {
        /// Whether file systems are flushed before.
        sync: bool,
    } -> ();

    /// Runs operations one after the other (E-089).
    Batch = "batch" {
        /// The operations.
        ops: Vec<BatchItem>,
    } -> Vec<BatchEntry>;

    /// Uploads bytes for a later operation (E-102).
    Stage = "stage" {
        /// The key by which that operation names them.
        key: u64,
        /// The next piece.
        data: Vec<u8>,
        /// Whether it is the last piece.
        last: bool,
    } -> ();
}
