import Inet

/// One budget for the buffers of all connections.
///
/// A buffer grows only while its application consumes or the network delivers, so the budget is met by many connections that stall
/// at once. Then growth stops first; beyond the budget the greediest gives way, so that the others go on.
extension Stack {
    /// Windows and buffers must not grow any more.
    var isShortOfMemory: Bool { bufferMemory > configuration.memoryLimit / 4 * 3 }

    /// Resets connections until an eighth of the budget is free: of the remote address that holds most, the one that holds most.
    mutating func evictIfNeeded(now: Instant) {
        guard bufferMemory > configuration.memoryLimit else { return }
        let goal = configuration.memoryLimit / 8 * 7
        var holders: [IPAddress: (total: Int, members: [(memory: Int, index: Int)])] = [:]
        for index in 0..<connections.slotCount where connections.isOccupied(index) && connections[index].accountedMemory > 0 {
            let memory = connections[index].accountedMemory
            var holder = holders[connections[index].remote.address] ?? (0, [])
            holder.total += memory
            holder.members.append((memory, index))
            holders[connections[index].remote.address] = holder
        }
        for address in holders.keys { holders[address]?.members.sort { $0.memory < $1.memory } }
        while bufferMemory > goal, let greediest = holders.max(by: { $0.value.total < $1.value.total })?.key {
            guard let victim = holders[greediest]?.members.popLast() else {
                holders[greediest] = nil
                continue
            }
            holders[greediest]?.total -= victim.memory
            evictions &+= 1
            connections[victim.index].abort(.outOfMemory)
            settle(victim.index, now: now)
        }
    }
}
