"""`python -m gradproof`."""

from .cli import main

raise SystemExit(main())
