//! The node over the wire, with the Rust client and with bare messages.

#[cfg(test)]
mod answers;
#[cfg(test)]
mod append;
#[cfg(test)]
mod bare;
#[cfg(test)]
mod batch;
#[cfg(test)]
mod copies;
#[cfg(test)]
mod damage;
#[cfg(test)]
mod durability;
#[cfg(test)]
mod fixture;
#[cfg(test)]
mod frames;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod fuzz_values;
#[cfg(test)]
mod gate;
#[cfg(test)]
mod give_up;
#[cfg(test)]
mod group_answers;
#[cfg(test)]
mod group_consumers;
#[cfg(test)]
mod group_records;
#[cfg(test)]
mod groups;
#[cfg(test)]
mod many;
#[cfg(test)]
mod raw;
#[cfg(test)]
mod read;
#[cfg(test)]
mod scavenge;
#[cfg(test)]
mod subscribe;
#[cfg(test)]
mod wire;
