//! Every sync fails once, every other call that changes the disk finds no space once; then the
//! machine stops. What was acknowledged, before the failure or after it, is there.

use std::io::ErrorKind;
use std::sync::Arc;

use chronik_wal::io::{CrashPolicy, Disk, DiskCall, Fault, FaultyDisk, MemoryDisk};

use super::common::model::Loss;
use super::common::script::run_script;
use super::common::world::{META, World};
use super::crashes::judge;
use super::{Models, SEEDS, THREADS, Tally, open};

/// The `nth` call of this kind fails; then the machine stops.
#[derive(Clone, Debug)]
#[allow(dead_code, reason = "the fields are there to be printed")]
struct Case {
    seed: u64,
    call: DiskCall,
    nth: usize,
    policy: CrashPolicy,
}

const CALLS: [DiskCall; 8] = [
    DiskCall::Sync,
    DiskCall::Write,
    DiskCall::SetLength,
    DiskCall::Allocate,
    DiskCall::Open,
    DiskCall::Rename,
    DiskCall::Remove,
    DiskCall::SyncDirectory,
];

/// Of the calls that are frequent and alike, every so many fail in one seed.
const STRIDE: usize = 2;

pub(crate) fn enumerate(thread: usize, tally: &mut Tally) {
    for seed in SEEDS {
        for call in CALLS {
            for nth in (thread..).step_by(THREADS * STRIDE) {
                let mut ran = None;
                let policy = CrashPolicy::KeepUnsynced;
                tally.run("script with a failed call", Case { seed, call, nth, policy }, || {
                    ran = run_with_fault(seed, call, nth + seed as usize % STRIDE);
                    Ok(())
                });
                let Some((disk, models)) = ran else { break };
                let point = disk.op_count();
                for (policy, loss) in [
                    (CrashPolicy::KeepUnsynced, Loss::Process),
                    (CrashPolicy::LoseUnsynced, Loss::Power),
                    (CrashPolicy::LoseWrites, Loss::Power),
                ] {
                    tally.run("failed call", Case { seed, call, nth, policy }, || {
                        let machine = open(&disk.crash(point, policy));
                        let machine = machine.map_err(|error| format!("does not open: {error}"))?;
                        judge(&models, point, loss, &machine.find_all()).map(|_| ())
                    });
                }
            }
        }
    }
}

/// Runs the script on a disk whose `nth` such call fails; `None` if there are not so many.
fn run_with_fault(seed: u64, call: DiskCall, nth: usize) -> Option<(MemoryDisk, Models)> {
    let memory = MemoryDisk::new();
    let faulty = FaultyDisk::new(Arc::new(memory.clone()));
    if call == DiskCall::Sync {
        memory.fail_sync(nth);
    } else {
        let error = ErrorKind::StorageFull;
        faulty.plan(Fault { call, path_contains: String::new(), skip: nth, sticky: false, error });
    }
    let disk: Arc<dyn Disk> = Arc::new(faulty.clone());
    let models = match World::new(&memory, disk) {
        Ok(mut world) => {
            run_script(&mut world, seed);
            world.models
        }
        Err(_) => {
            // Nothing was acknowledged; only the metadata log may have come into being.
            let mut meta = super::LogModel::default();
            meta.begin(0);
            Models::from([(META.to_owned(), meta)])
        }
    };
    let has_fired = faulty.fired() > 0 || memory.has_failed_sync();
    has_fired.then_some((memory, models))
}
