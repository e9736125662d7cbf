-- Boots as this run makes them: cold the first time on a machine, warm after that, cold with --cold.
require("own").tests()
