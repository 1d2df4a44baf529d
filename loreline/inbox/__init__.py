"""Deliveries of webhooks: checked, stored, and worked on after they are answered."""
