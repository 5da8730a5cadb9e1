"""What the gateway costs: seconds and memory, measured on a running gateway and reported as JSON.

A benchmark only reports. Numbers of different machines are not compared; a claim is a ratio beside a peer
that ran on the same machine.
"""
