//! What the logs of a machine go through before it is crashed.

use chronik_common::{Rng, SeededRng};

use super::world::{META, OS, World};

const STEPS: usize = 170;

/// Runs the script of `seed` on `world`: about a hundred batches, and everything else a log
/// goes through.
pub fn run_script(world: &mut World, seed: u64) {
    let mut rng = SeededRng::new(seed);
    for name in ["a-0", "b-0", OS] {
        world.create(name);
    }
    for step in 0..STEPS {
        let name = ["a-0", "a-0", "a-0", "b-0", OS, META][rng.below(6) as usize];
        match rng.below(32) {
            0..18 => {
                // A few are large enough to go past the journal.
                let bytes = if rng.below(10) == 0 { 2_300 } else { rng.below(180) as usize };
                world.append(name, 1 + rng.below(3) as usize, bytes / 2);
            }
            18..24 => world.commit(),
            24 => world.write_behind(),
            25 => world.checkpoint(rng.below(2) == 0),
            26 => world.set_state(name),
            27 => world.truncate(name, 1 + rng.below(9) as usize),
            28 => world.start_epoch(name),
            29 => world.submit(name),
            30 if step % 2 == 0 => world.raise_start(name),
            _ => {}
        }
        match step {
            20 => world.create("gone-0"),
            21..=23 => world.append("gone-0", 1, 20),
            40 => world.remove("gone-0"),
            60 => world.restart(),
            // The ring wraps even if the dice say otherwise.
            _ if step % 10 == 9 => world.commit(),
            _ => {}
        }
    }
    world.commit();
}
