resource "kafka_topic" "words" {
  for_each = {
    "words.tasks.count" = {
      partitions         = 4
      replication_factor = 3
      config = {
        "cleanup.policy"      = "delete"
        "retention.ms"        = "604800000"
        "min.insync.replicas" = "2"
      }
    }
    "words.tasks.split" = {
      partitions         = 4
      replication_factor = 3
      config = {
        "cleanup.policy"      = "delete"
        "retention.ms"        = "604800000"
        "min.insync.replicas" = "2"
      }
    }
    "words.results" = {
      partitions         = 4
      replication_factor = 3
      config = {
        "cleanup.policy"      = "compact,delete"
        "retention.ms"        = "604800000"
        "min.insync.replicas" = "2"
      }
    }
    "words.events" = {
      partitions         = 4
      replication_factor = 3
      config = {
        "cleanup.policy"         = "compact"
        "message.timestamp.type" = "LogAppendTime"
        "min.insync.replicas"    = "2"
      }
    }
    "words.dlq" = {
      partitions         = 4
      replication_factor = 3
      config = {
        "cleanup.policy"      = "delete"
        "retention.ms"        = "2592000000"
        "max.message.bytes"   = "2097152"
        "min.insync.replicas" = "2"
      }
    }
    "words.timers" = {
      partitions         = 4
      replication_factor = 3
      config = {
        "cleanup.policy"            = "compact"
        "max.message.bytes"         = "2097152"
        "segment.bytes"             = "134217728"
        "min.cleanable.dirty.ratio" = "0.2"
        "min.insync.replicas"       = "2"
      }
    }
    "words.schedules" = {
      partitions         = 1
      replication_factor = 3
      config = {
        "cleanup.policy"      = "compact"
        "max.message.bytes"   = "2097152"
        "min.insync.replicas" = "2"
      }
    }
    "words.control" = {
      partitions         = 1
      replication_factor = 3
      config = {
        "cleanup.policy"         = "compact,delete"
        "retention.ms"           = "604800000"
        "message.timestamp.type" = "LogAppendTime"
        "min.insync.replicas"    = "2"
      }
    }
  }

  name               = each.key
  partitions         = each.value.partitions
  replication_factor = each.value.replication_factor
  config             = each.value.config

  lifecycle {
    prevent_destroy = true
  }
}
