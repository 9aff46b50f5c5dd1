"""Host networking in a real kernel, in namespaces of its own. Root is needed."""

import pytest

pytest.register_assert_rewrite(f"{__name__}.host", f"{__name__}.foreign", f"{__name__}.packets")
